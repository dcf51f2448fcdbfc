/* with: base/scan.c */
/* Every scanner that this processor can run, against the definition: each byte value at each place of runs of each length around the block
 * sizes. The runs are allocations of exactly their length, so a read beyond them is seen by the sanitizer. */
#include "base/scan.h"

#include "check.h"

enum { LONGEST = 100 };

static bool value_allows(int c)
{
    return c == '\t' || (c >= 0x20 && c <= 0x7e) || c >= 0x80;
}

static bool visible_allows(int c)
{
    return c >= 0x21 && c <= 0x7e;
}

static void check_places(const as_scanner *scanner, char *run, size_t len)
{
    for (size_t place = 0; place < len; place++) {
        for (int c = 0; c < 256; c++) {
            run[place] = (char)c;
            size_t value = scanner->field_value(run, len), visible = scanner->visible(run, len);
            if (value != (value_allows(c) ? len : place) || visible != (visible_allows(c) ? len : place)) {
                fprintf(stderr, "%s: byte 0x%02x at %zu of %zu: value %zu, visible %zu\n", scanner->name, c, place, len,
                        value, visible);
                CHECK(false);
            }
        }
        run[place] = 'x';
    }
    CHECK_INT(scanner->field_value(run, len), len);
    CHECK_INT(scanner->visible(run, len), len);
}

static void check_first_of_several(const as_scanner *scanner)
{
    char run[LONGEST];
    memset(run, 'x', sizeof(run));
    for (size_t first = 0; first < sizeof(run); first++) {
        memset(run, 'x', sizeof(run));
        memset(run + first, '\r', sizeof(run) - first);
        CHECK_INT(scanner->field_value(run, sizeof(run)), first);
        CHECK_INT(scanner->visible(run, sizeof(run)), first);
    }
}

int main(void)
{
    int usable = 0;
    for (int i = 0; i < as_scanners_len; i++) {
        if (!as_scanners[i].usable()) {
            printf("%s: not on this processor\n", as_scanners[i].name);
            continue;
        }
        usable++;
        for (size_t len = 0; len <= LONGEST; len++) {
            char *run = malloc(len > 0 ? len : 1);
            memset(run, 'x', len);
            check_places(&as_scanners[i], run, len);
            free(run);
        }
        check_first_of_several(&as_scanners[i]);
    }
    CHECK(usable > 0);
    CHECK_INT(as_scan_field_value("ab c\r\n", 6), 4);
    CHECK_INT(as_scan_visible("/a b", 4), 2);
    return check_result("scan");
}
