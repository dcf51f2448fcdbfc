/* with: base/error.c base/scan.c http/head.c http/target.c */
/* A request target: what is routed starts with a slash, has no segment that leads elsewhere, and fits into its room. */
#include "http/target.h"

#include "invariant.h"

static void check_path(as_str path)
{
    INVARIANT(path.len > 0 && path.ptr[0] == '/' && path.ptr[path.len] == '\0');
    INVARIANT(memchr(path.ptr, '\0', path.len) == NULL);
    INVARIANT(memmem(path.ptr, path.len, "//", 2) == NULL);
    INVARIANT(memmem(path.ptr, path.len, "/../", 4) == NULL && memmem(path.ptr, path.len, "/./", 3) == NULL);
    INVARIANT(!as_str_ends(path, AS_STR("/..")) && !as_str_ends(path, AS_STR("/.")));
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    char *out = malloc(size + 1);
    as_target target;
    const as_method methods[] = {AS_METHOD_GET, AS_METHOD_OPTIONS, AS_METHOD_CONNECT};
    for (size_t i = 0; i < AS_COUNT_OF(methods); i++) {
        int err = as_target_parse(as_str_of((const char *)data, size), methods[i], out, &target);
        INVARIANT(err == AS_OK || err == AS_EBADREQUEST || err == AS_ENOTIMPLEMENTED);
        if (err == AS_OK && target.form != AS_TARGET_ASTERISK) {
            INVARIANT(target.path.len <= size);
            check_path(target.path);
        }
        if (err == AS_OK && target.form == AS_TARGET_ABSOLUTE)
            INVARIANT(as_is_host_port(target.authority));
    }
    free(out);
    return 0;
}
