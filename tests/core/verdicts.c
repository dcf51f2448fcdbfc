/* verdicts.c: what the parsers make of requests: reads records of a 32-bit length and that many bytes, prints a line for each:
 * `accepted METHOD BODY` (the body in hexadecimal, `-` when empty), `refused STATUS` or `incomplete`. For test_other_parsers.py. */
#include "request_reader.h"

#include <stdio.h>
#include <stdlib.h>

static void judge(const char *data, size_t len)
{
    reader r = {0};
    reader_feed(&r, data, len);
    if (r.state == READER_MORE) {
        printf("incomplete\n");
    } else if (r.state == READER_REFUSED) {
        printf("refused %d\n", r.status);
    } else {
        printf("accepted %.*s ", (int)r.head.method_text.len, r.head.method_text.ptr);
        for (size_t i = 0; i < r.body.len; i++)
            printf("%02x", (unsigned char)r.body.ptr[i]);
        printf("%s\n", r.body.len == 0 ? "-" : "");
    }
    reader_free(&r);
}

int main(void)
{
    /* The others have no limits of ours, so those shall not decide. */
    reader_limits = (as_limits){.header_size = 1 << 20, .target_size = 1 << 20, .body_size = 1 << 20};
    uint32_t len;
    while (fread(&len, sizeof(len), 1, stdin) == 1) {
        char *data = malloc(len > 0 ? len : 1);
        if (data == NULL || fread(data, 1, len, stdin) != len)
            return EXIT_FAILURE;
        judge(data, len);
        free(data);
    }
    return EXIT_SUCCESS;
}
