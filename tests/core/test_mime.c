/* with: base/memory.c */
#include "handler/mime.c"

#include "check.h"

#define TYPE_OF(name) as_mime_of(mime, as_str_from(name))

static void test_built_in_types(const as_mime *mime)
{
    CHECK_STR(TYPE_OF("index.html"), "text/html; charset=utf-8");
    CHECK_STR(TYPE_OF("site.css"), "text/css; charset=utf-8");
    CHECK_STR(TYPE_OF("site.js"), "text/javascript; charset=utf-8");
    CHECK_STR(TYPE_OF("data.json"), "application/json");
    CHECK_STR(TYPE_OF("picture.png"), "image/png");
    CHECK_STR(TYPE_OF("picture.svg"), "image/svg+xml");
    CHECK_STR(TYPE_OF("font.woff2"), "font/woff2");
    CHECK_STR(TYPE_OF("code.wasm"), "application/wasm");
}

static void test_every_built_in_type_is_found(const as_mime *mime)
{
    CHECK_INT(mime->len, AS_COUNT_OF(BUILT_IN));
    for (size_t i = 0; i < AS_COUNT_OF(BUILT_IN); i++) {
        char name[32];
        snprintf(name, sizeof(name), "a.%s", BUILT_IN[i][0]);
        CHECK_STR(TYPE_OF(name), BUILT_IN[i][1]);
    }
}

static void test_names(const as_mime *mime)
{
    CHECK_STR(TYPE_OF("INDEX.HTML"), "text/html; charset=utf-8");
    CHECK_STR(TYPE_OF("a.b/c.d/index.html"), "text/html; charset=utf-8");
    CHECK_STR(TYPE_OF("jquery-3.7.1.min.js"), "text/javascript; charset=utf-8");
    CHECK_STR(TYPE_OF("archive.tar.gz"), "application/gzip");
    CHECK_STR(TYPE_OF("README"), "application/octet-stream");
    CHECK_STR(TYPE_OF("html"), "application/octet-stream");
    CHECK_STR(TYPE_OF("dir.html/README"), "application/octet-stream");
    CHECK_STR(TYPE_OF("ends.with."), "application/octet-stream");
    CHECK_STR(TYPE_OF("a.unknown"), "application/octet-stream");
    CHECK_STR(TYPE_OF(""), "application/octet-stream");
    CHECK_STR(TYPE_OF("a.htmlx"), "application/octet-stream");
    CHECK_STR(TYPE_OF("a.htmlx.htm"), "text/html; charset=utf-8");
    CHECK_STR(as_mime_of(mime, as_str_of("a.css.map", 5)), "text/css; charset=utf-8");
    as_str type = TYPE_OF("README");
    CHECK_INT(type.ptr[type.len], 0);
}

static void test_adding_and_replacing(as_mime *mime)
{
    uint32_t before = mime->len;
    as_mime_set(mime, AS_STR("foo"), AS_STR("application/x-foo"));
    CHECK_STR(TYPE_OF("a.foo"), "application/x-foo");
    as_mime_set(mime, AS_STR("foo"), AS_STR("text/x-foo"));
    CHECK_STR(TYPE_OF("a.FOO"), "text/x-foo");
    as_mime_set(mime, AS_STR("tar.gz"), AS_STR("application/x-tarball"));
    CHECK_STR(TYPE_OF("archive.tar.gz"), "application/x-tarball");
    CHECK_STR(TYPE_OF("archive.gz"), "application/gzip");
    as_mime_set(mime, AS_STR("000"), AS_STR("first/first"));
    as_mime_set(mime, AS_STR("zzz"), AS_STR("last/last"));
    CHECK_STR(TYPE_OF("a.000"), "first/first");
    CHECK_STR(TYPE_OF("a.zzz"), "last/last");
    CHECK_INT(mime->len, before + 4);
    CHECK(as_mime_has(mime, AS_STR("FOO")) && as_mime_has(mime, AS_STR("tar.gz")));
    CHECK(!as_mime_has(mime, AS_STR("fo")) && !as_mime_has(mime, AS_STR("a.foo")));
    as_str type = TYPE_OF("a.foo");
    CHECK_INT(type.ptr[type.len], 0);
}

static void test_growing(as_mime *mime)
{
    char extension[16];
    for (int i = 0; i < 1000; i++) {
        snprintf(extension, sizeof(extension), "x%d", i * 7919 % 1000);
        as_mime_set(mime, as_str_from(extension), as_str_from(extension));
    }
    CHECK_STR(TYPE_OF("a.x0"), "x0");
    CHECK_STR(TYPE_OF("a.x999"), "x999");
    CHECK_STR(TYPE_OF("a.x500"), "x500");
}

int main(void)
{
    as_mime *mime = as_mime_new();
    test_built_in_types(mime);
    test_every_built_in_type_is_found(mime);
    test_names(mime);
    test_adding_and_replacing(mime);
    test_growing(mime);
    as_mime_free(mime);
    as_mime_free(NULL);
    return check_result("mime");
}
