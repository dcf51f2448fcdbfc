/* with: http/date.c */
/* A date that parses is one second; writing it and reading that again gives the same. */
#include "http/date.h"

#include "invariant.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    int64_t seconds = as_date_parse(as_str_of((const char *)data, size));
    INVARIANT(seconds >= -1 && seconds <= 253402300800); /* a leap second at the end of the year 9999 */
    if (seconds < 0 || seconds >= 253402300800)
        return 0;
    char out[AS_DATE_LEN];
    as_date_format(seconds, out);
    INVARIANT(as_date_parse(as_str_of(out, AS_DATE_LEN)) == seconds);
    return 0;
}
