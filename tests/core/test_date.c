/* with: */
/* HTTP dates: every second that matters there and back, the three forms, and what is none of them. */
#include <time.h>

#include "http/date.c"

#include "check.h"

static as_str format(int64_t seconds)
{
    static char out[AS_DATE_LEN];
    as_date_format(seconds, out);
    return as_str_of(out, AS_DATE_LEN);
}

/* Against the C library, a day and a bit at a time up to the year 9999. */
static void test_there_and_back(void)
{
    for (int64_t seconds = 0; seconds < 253402300800; seconds += 86400 * 3 + 3661) {
        struct tm utc;
        time_t t = seconds;
        gmtime_r(&t, &utc);
        char expected[64];
        strftime(expected, sizeof(expected), "%a, %d %b %Y %H:%M:%S GMT", &utc);
        CHECK_STR(format(seconds), expected);
        CHECK_INT(as_date_parse(format(seconds)), seconds);
    }
    CHECK_STR(format(253402300799), "Fri, 31 Dec 9999 23:59:59 GMT");
}

static void test_three_forms(void)
{
    CHECK_INT(as_date_parse(AS_STR("Sun, 06 Nov 1994 08:49:37 GMT")), 784111777);
    CHECK_INT(as_date_parse(AS_STR("Sunday, 06-Nov-94 08:49:37 GMT")), 784111777);
    CHECK_INT(as_date_parse(AS_STR("Sun Nov  6 08:49:37 1994")), 784111777);
    CHECK_INT(as_date_parse(AS_STR("Wed Nov 16 08:49:37 1994")), 784975777);
    CHECK_INT(as_date_parse(AS_STR("Thu, 01 Jan 1970 00:00:00 GMT")), 0);
    CHECK_INT(as_date_parse(AS_STR("Tue, 29 Feb 2000 12:00:00 GMT")), 951825600);
    CHECK_INT(as_date_parse(AS_STR("Saturday, 01-Jan-00 00:00:00 GMT")), 946684800);
}

static void test_what_is_no_date(void)
{
    const char *bad[] = {
        "",
        "now",
        "0",
        "784111777",
        "Sun, 06 Nov 1994 08:49:37",
        "Sun, 06 Nov 1994 08:49:37 UTC",
        "Sun, 06 Nov 1994 08:49:37 GMT ",
        "Sun, 6 Nov 1994 08:49:37 GMT",
        "Sun, 06 nov 1994 08:49:37 GMT",
        "Sun, 06 Nov 94 08:49:37 GMT",
        "Sun, 06-Nov-1994 08:49:37 GMT",
        "Sun, 00 Nov 1994 08:49:37 GMT",
        "Sun, 32 Nov 1994 08:49:37 GMT",
        "Thu, 31 Feb 1994 08:49:37 GMT",
        "Thu, 29 Feb 2001 08:49:37 GMT",
        "Sun, 06 Nov 1994 24:49:37 GMT",
        "Sun, 06 Nov 1994 08:60:37 GMT",
        "Sun, 06 Nov 1994 08:49:61 GMT",
        "Sun, 06 Nov 1994 8:49:37 GMT",
        "Sun, 06 Nov 1994 08:49 GMT",
        "Sun, 06 Nov 1969 08:49:37 GMT",
        "Sun, 06 Nov 1994 -8:49:37 GMT",
        "Su, 06 Nov 1994 08:49:37 GMT",
        "Sun Nov 6 08:49:37 1994",
        "Sun Nov  6 08:49:37 94",
        "Sun Nov  6 08:49:37 1994 GMT",
        ", 06 Nov 1994 08:49:37 GMT",
    };
    for (size_t i = 0; i < AS_COUNT_OF(bad); i++) {
        if (as_date_parse(as_str_from(bad[i])) != -1)
            fprintf(stderr, "taken for a date: %s\n", bad[i]);
        CHECK_INT(as_date_parse(as_str_from(bad[i])), -1);
    }
}

/* Cut off anywhere, in a block of exactly that length, it is no date and nothing beyond is read. */
static void test_cut_off(void)
{
    const char *forms[] = {"Sun, 06 Nov 1994 08:49:37 GMT", "Sunday, 06-Nov-94 08:49:37 GMT",
                           "Sun Nov  6 08:49:37 1994"};
    for (size_t i = 0; i < AS_COUNT_OF(forms); i++) {
        for (size_t len = 1; len < strlen(forms[i]); len++) {
            char *copy = malloc(len);
            memcpy(copy, forms[i], len);
            CHECK_INT(as_date_parse(as_str_of(copy, len)), -1);
            free(copy);
        }
    }
}

int main(void)
{
    test_there_and_back();
    test_three_forms();
    test_what_is_no_date();
    test_cut_off();
    return check_result("date");
}
