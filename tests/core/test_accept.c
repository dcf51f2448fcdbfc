/* with: base/memory.c */
#include "http/accept.c"

#include "check.h"

static as_head head;
static as_accepted accepted;

static void add_field(as_known_field which, const char *name, const char *value)
{
    if (which != AS_FIELD_COUNT && head.known[which] < 0)
        head.known[which] = (int16_t)head.fields_len;
    head.fields[head.fields_len++] = (as_field){as_str_from(name), as_str_from(value)};
}

static void begin(void)
{
    head.fields_len = 0;
    memset(head.known, 0xff, sizeof(head.known));
}

static as_str accepted_text(void)
{
    static char text[128];
    int len = snprintf(text, sizeof(text), "br %d zstd %d gzip %d identity %d%s", accepted.codings[AS_CODING_BR],
                       accepted.codings[AS_CODING_ZSTD], accepted.codings[AS_CODING_GZIP], accepted.identity,
                       accepted.identity_is_named ? "!" : "");
    return as_str_of(text, (size_t)len);
}

static as_str codings(const char *value)
{
    begin();
    add_field(AS_FIELD_ACCEPT_ENCODING, "Accept-Encoding", value);
    as_accept_codings(&head, &accepted);
    return accepted_text();
}

static void test_codings(void)
{
    CHECK_STR(codings("gzip, deflate, br, zstd"), "br 1000 zstd 1000 gzip 1000 identity 1000");
    CHECK_STR(codings("gzip"), "br 0 zstd 0 gzip 1000 identity 1000");
    CHECK_STR(codings("GZIP;Q=0.5 , Br ; q=0.25"), "br 250 zstd 0 gzip 500 identity 1000");
    CHECK_STR(codings("x-gzip"), "br 0 zstd 0 gzip 1000 identity 1000");
    CHECK_STR(codings("gzip;q=0"), "br 0 zstd 0 gzip 0 identity 1000");
    CHECK_STR(codings(""), "br 0 zstd 0 gzip 0 identity 1000");
    CHECK_STR(codings("gzipped, brotli, xgzip"), "br 0 zstd 0 gzip 0 identity 1000");
    CHECK_STR(codings("identity"), "br 0 zstd 0 gzip 0 identity 1000!");
    CHECK_STR(codings("identity;q=0.3,gzip;q=0.001"), "br 0 zstd 0 gzip 1 identity 300!");
    CHECK_STR(codings("identity;q=0,br"), "br 1000 zstd 0 gzip 0 identity 0!");
    begin();
    as_accept_codings(&head, &accepted);
    CHECK_STR(accepted_text(), "br 0 zstd 0 gzip 0 identity 1000");
}

static void test_wildcard(void)
{
    CHECK_STR(codings("*"), "br 1000 zstd 1000 gzip 1000 identity 1000");
    CHECK_STR(codings("*;q=0.2, br"), "br 1000 zstd 200 gzip 200 identity 1000");
    CHECK_STR(codings("gzip;q=0, *"), "br 1000 zstd 1000 gzip 0 identity 1000");
    CHECK_STR(codings("*;q=0"), "br 0 zstd 0 gzip 0 identity 0");
    CHECK_STR(codings("*;q=0, identity;q=0.1"), "br 0 zstd 0 gzip 0 identity 100!");
    CHECK_STR(codings("gzip, *;q=0"), "br 0 zstd 0 gzip 1000 identity 0");
}

static void test_several_lines(void)
{
    begin();
    add_field(AS_FIELD_ACCEPT_ENCODING, "Accept-Encoding", "gzip;q=0.5");
    add_field(AS_FIELD_COUNT, "Accept", "br");
    add_field(AS_FIELD_ACCEPT_ENCODING, "accept-encoding", "");
    add_field(AS_FIELD_ACCEPT_ENCODING, "ACCEPT-ENCODING", "zstd");
    as_accept_codings(&head, &accepted);
    CHECK_STR(accepted_text(), "br 0 zstd 1000 gzip 500 identity 1000");
}

static void test_weights(void)
{
    static const struct {
        const char *text;
        int weight;
    } CASES[] = {{"0", 0},       {"1", 1000},   {"0.", 0},       {"1.", 1000}, {"0.1", 100}, {"0.12", 120},
                 {"0.123", 123}, {"1.0", 1000}, {"1.000", 1000}, {"0.001", 1}, {"", -1},     {"2", -1},
                 {"0.1234", -1}, {"1.001", -1}, {".5", -1},      {"-1", -1},   {"0,5", -1},  {"0.x", -1},
                 {"01", -1},     {"q", -1},     {"1.0000", -1}};
    for (size_t i = 0; i < AS_COUNT_OF(CASES); i++)
        CHECK_INT(read_weight(as_str_from(CASES[i].text)), CASES[i].weight);
}

/* A member that is not well-formed is left out, the others stand. */
static void test_malformed(void)
{
    CHECK_STR(codings("gzip;q=2, br"), "br 1000 zstd 0 gzip 0 identity 1000");
    CHECK_STR(codings("gzip;q=, br;q=x, zstd"), "br 0 zstd 1000 gzip 0 identity 1000");
    CHECK_STR(codings(";q=1,,;,=, gzip"), "br 0 zstd 0 gzip 1000 identity 1000");
    CHECK_STR(codings("gzip;;q=0.5;"), "br 0 zstd 0 gzip 500 identity 1000");
    CHECK_STR(codings("gzip;level=9;q=0.5"), "br 0 zstd 0 gzip 500 identity 1000");
    CHECK_STR(codings("gz ip"), "br 0 zstd 0 gzip 0 identity 1000");
}

static void test_bound(void)
{
    static char text[1024];
    for (int before = AS_MAX_ACCEPTED - 1; before <= AS_MAX_ACCEPTED; before++) {
        text[0] = '\0';
        for (int i = 0; i < before; i++)
            strcat(text, "x,");
        strcat(text, "gzip");
        codings(text);
        CHECK_INT(accepted.codings[AS_CODING_GZIP], before < AS_MAX_ACCEPTED ? 1000 : 0);
    }
}

static as_media_verdict html(const char *value)
{
    begin();
    add_field(AS_FIELD_COUNT, "Accept", value);
    return as_accept_media(&head, AS_STR("text/html"));
}

static void test_media(void)
{
    CHECK_INT(html("text/html,application/xhtml+xml,application/xml;q=0.9,*/*;q=0.8"), AS_MEDIA_NAMED);
    CHECK_INT(html("Text/HTML;level=1;q=0.1"), AS_MEDIA_NAMED);
    CHECK_INT(html("*/*"), AS_MEDIA_TAKEN);
    CHECK_INT(html("text/*;q=0.3"), AS_MEDIA_TAKEN);
    CHECK_INT(html("image/avif,image/webp,*/*;q=0.8"), AS_MEDIA_TAKEN);
    CHECK_INT(html("application/json"), AS_MEDIA_REFUSED);
    CHECK_INT(html("text/htm"), AS_MEDIA_REFUSED);
    CHECK_INT(html("text/html;q=0, */*"), AS_MEDIA_REFUSED); /* the more precise range decides */
    CHECK_INT(html("*/*, text/*;q=0"), AS_MEDIA_REFUSED);
    CHECK_INT(html("text/*;q=0, text/html;q=0.1"), AS_MEDIA_NAMED);
    CHECK_INT(html("*/*;q=0"), AS_MEDIA_REFUSED);
    CHECK_INT(html(""), AS_MEDIA_TAKEN);
    begin();
    CHECK_INT(as_accept_media(&head, AS_STR("text/html")), AS_MEDIA_TAKEN);
    add_field(AS_FIELD_COUNT, "accept", "image/png");
    add_field(AS_FIELD_COUNT, "ACCEPT", "text/html");
    CHECK_INT(as_accept_media(&head, AS_STR("text/html")), AS_MEDIA_NAMED);
}

int main(void)
{
    test_codings();
    test_wildcard();
    test_several_lines();
    test_weights();
    test_malformed();
    test_bound();
    test_media();
    return check_result("accept");
}
