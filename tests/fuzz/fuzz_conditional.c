/* with: base/error.c base/scan.c http/head.c http/date.c http/conditional.c */
/* Field lines that bring preconditions and ranges: every range lies within its representation. */
#include "http/conditional.h"

#include "invariant.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    static const as_limits limits = {.header_size = 65536, .target_size = 512};
    static const char *methods[] = {"GET", "HEAD", "PUT"};
    if (size > 8192)
        return 0;
    for (size_t i = 0; i < AS_COUNT_OF(methods); i++) {
        char *text = malloc(size + 64);
        int len = snprintf(text, 64, "%s / HTTP/1.1\r\nHost: a\r\n", methods[i]);
        memcpy(text + len, data, size);
        memcpy(text + len + size, "\r\n", 2);
        as_head head;
        size_t scanned = 0;
        if (as_head_parse(text, (size_t)len + size + 2, &scanned, &limits, &head) > 0) {
            as_validators validators = {.etag = AS_STR("\"a\""), .last_modified = 946684800};
            int status = as_conditional_check(&head, &validators);
            INVARIANT(status == 0 || status == 412 || (status == 304 && i < 2));
            const uint64_t sizes[] = {0, 1, 100, UINT32_MAX};
            for (size_t k = 0; k < AS_COUNT_OF(sizes); k++) {
                as_range_set set = {.len = 0};
                if (as_range_check(&head, &validators, sizes[k], &set) != AS_RANGE_SOME)
                    continue;
                INVARIANT(i == 0 && set.len > 0 && set.len <= AS_MAX_RANGES);
                for (int n = 0; n < set.len; n++)
                    INVARIANT(set.ranges[n].first <= set.ranges[n].last && set.ranges[n].last < sizes[k]);
            }
        }
        free(text);
    }
    return 0;
}
