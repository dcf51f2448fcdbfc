/* with: base/memory.c base/buf.c */
#include "handler/environment.c"

#include "check.h"

enum { SPACE = 16 * 1024 };

static as_peer peer;
static as_request request;
static char block[SPACE];
static int block_len;

static void begin(const char *method, const char *target, const char *path)
{
    memset(&request, 0, sizeof(request));
    memset(request.head.known, -1, sizeof(request.head.known));
    peer = (as_peer){
        .remote_address = "192.0.2.7", .local_address = "198.51.100.1", .remote_port = 40001, .local_port = 8080};
    request.peer = &peer;
    request.id = 0x00010203a4b5c6d7;
    request.body.fd = -1;
    request.head.method_text = as_str_from(method);
    request.head.target = as_str_from(target);
    request.head.minor = 1;
    request.head.content_length = -1;
    request.path = as_str_from(path);
}

static void field(const char *name, const char *value)
{
    request.head.fields[request.head.fields_len++] = (as_field){as_str_from(name), as_str_from(value)};
}

static void build_with(as_pool_handler_options options, bool authorization)
{
    as_environment environment;
    options.server_software = "cherokee-app/0";
    as_environment_init(&environment, &options);
    block_len = as_environment_build(&environment, &request, authorization, block, sizeof(block));
    as_environment_free(&environment);
    CHECK(block_len > 0 && block[block_len - 1] == '\0');
}

static void build(void)
{
    build_with((as_pool_handler_options){.mounted = true}, true);
}

/* NULL when the variable is not there. A name that occurs twice is an error: dict() would take the last. */
static const char *value_of(const char *name)
{
    const char *found = NULL;
    const char *at = block;
    while (at < block + block_len) {
        const char *value = at + strlen(at) + 1;
        if (strcmp(at, name) == 0) {
            CHECK(found == NULL);
            found = value;
        }
        at = value + strlen(value) + 1;
    }
    CHECK(at == block + block_len);
    return found;
}

#define CHECK_VALUE(name, expected)                        \
    do {                                                   \
        const char *value_found = value_of(name);          \
        CHECK(value_found != NULL);                        \
        if (value_found != NULL)                           \
            CHECK_STR(as_str_from(value_found), expected); \
    } while (0)

static void test_plain(void)
{
    begin("GET", "/shop/list?a=b%20c", "/shop/list");
    request.rule_prefix = AS_STR("/shop");
    request.target.query = AS_STR("a=b%20c");
    request.head.host = AS_STR("example.org:8080");
    field("Host", "example.org:8080");
    field("User-Agent", "curl/8");
    build_with((as_pool_handler_options){.mounted = true,
                                         .document_root = "/srv/www",
                                         .extra = AS_STR("appserver.script\0/x.py\0")},
               true);
    CHECK_VALUE("REQUEST_METHOD", "GET");
    CHECK_VALUE("REQUEST_URI", "/shop/list?a=b%20c");
    CHECK_VALUE("SCRIPT_NAME", "/shop");
    CHECK_VALUE("PATH_INFO", "/list");
    CHECK_VALUE("QUERY_STRING", "a=b%20c");
    CHECK_VALUE("SERVER_NAME", "example.org");
    CHECK_VALUE("SERVER_PORT", "8080");
    CHECK_VALUE("SERVER_ADDR", "198.51.100.1");
    CHECK_VALUE("SERVER_PROTOCOL", "HTTP/1.1");
    CHECK_VALUE("SERVER_SOFTWARE", "cherokee-app/0");
    CHECK_VALUE("GATEWAY_INTERFACE", "CGI/1.1");
    CHECK_VALUE("REMOTE_ADDR", "192.0.2.7");
    CHECK_VALUE("REMOTE_PORT", "40001");
    CHECK_VALUE("REQUEST_SCHEME", "http");
    CHECK_VALUE("DOCUMENT_ROOT", "/srv/www");
    CHECK_VALUE("HTTP_HOST", "example.org:8080");
    CHECK_VALUE("HTTP_USER_AGENT", "curl/8");
    CHECK_VALUE("appserver.request_id", "00010203a4b5c6d7");
    CHECK_VALUE("appserver.script", "/x.py");
    CHECK(value_of("HTTPS") == NULL);
    CHECK(value_of("CONTENT_LENGTH") == NULL);
    CHECK(value_of("CONTENT_TYPE") == NULL);
}

static void test_not_mounted_and_without_query(void)
{
    begin("GET", "/a", "/a");
    request.rule_prefix = AS_STR("/a");
    build_with((as_pool_handler_options){.mounted = false}, true);
    CHECK_VALUE("SCRIPT_NAME", "");
    CHECK_VALUE("PATH_INFO", "/a");
    CHECK_VALUE("QUERY_STRING", "");
    CHECK_VALUE("DOCUMENT_ROOT", "");
    build();
    CHECK_VALUE("SCRIPT_NAME", "/a");
    CHECK_VALUE("PATH_INFO", "");
}

static void test_server_names(void)
{
    begin("GET", "/", "/");
    request.head.minor = 0;
    build();
    CHECK_VALUE("SERVER_NAME", "198.51.100.1");
    CHECK_VALUE("SERVER_PROTOCOL", "HTTP/1.0");
    CHECK(value_of("HTTP_HOST") == NULL);
    strcpy(peer.local_address, "2001:db8::1");
    build();
    CHECK_VALUE("SERVER_NAME", "[2001:db8::1]");
    CHECK_VALUE("SERVER_ADDR", "2001:db8::1");
    request.head.host = AS_STR("[::1]:81");
    build();
    CHECK_VALUE("SERVER_NAME", "[::1]");
    request.head.host = AS_STR("example.org");
    peer.secure = true;
    build();
    CHECK_VALUE("SERVER_NAME", "example.org");
    CHECK_VALUE("HTTPS", "on");
    CHECK_VALUE("REQUEST_SCHEME", "https");
    /* a unix socket */
    request.head.host = AS_STR_NONE;
    peer = (as_peer){0};
    build();
    CHECK_VALUE("SERVER_NAME", "localhost");
    CHECK_VALUE("SERVER_PORT", "80");
    CHECK_VALUE("REMOTE_ADDR", "");
}

static void test_authority_wins_over_host(void)
{
    begin("GET", "http://a.example/x", "/x");
    field("Host", "b.example");
    request.head.host = AS_STR("a.example");
    build();
    CHECK_VALUE("HTTP_HOST", "a.example");
    CHECK_VALUE("SERVER_NAME", "a.example");
    CHECK_VALUE("REQUEST_URI", "http://a.example/x");
}

static void test_content(void)
{
    begin("POST", "/", "/");
    field("Content-Type", "text/plain");
    field("Content-Length", "5");
    request.head.known[AS_FIELD_CONTENT_TYPE] = 0;
    request.head.content_length = 5;
    request.body.length = 5;
    build();
    CHECK_VALUE("CONTENT_TYPE", "text/plain");
    CHECK_VALUE("CONTENT_LENGTH", "5");
    CHECK(value_of("HTTP_CONTENT_TYPE") == NULL);
    CHECK(value_of("HTTP_CONTENT_LENGTH") == NULL);
    /* chunked: the length is what was received */
    request.head.content_length = -1;
    request.head.chunked = true;
    request.body.length = 123456;
    build();
    CHECK_VALUE("CONTENT_LENGTH", "123456");
    request.head.chunked = false;
    request.head.content_length = 0;
    request.body.length = 0;
    build();
    CHECK_VALUE("CONTENT_LENGTH", "0");
}

static void test_withheld_fields(void)
{
    static const char *const names[] = {"Proxy",   "proxy",           "Connection", "TE",      "Transfer-Encoding",
                                        "Trailer", "Keep-Alive",      "Upgrade",    "Foo_Bar", "X.Y",
                                        "X!",      "Proxy-Connection"};
    begin("GET", "/", "/");
    for (size_t i = 0; i < AS_COUNT_OF(names); i++)
        field(names[i], "bad");
    field("X-Good-1", "good");
    build();
    for (const char *at = block; at < block + block_len; at += strlen(at) + 1)
        CHECK(strcmp(at, "bad") != 0);
    CHECK_VALUE("HTTP_X_GOOD_1", "good");
}

static void test_authorization(void)
{
    begin("GET", "/", "/");
    field("Authorization", "Basic eDp5");
    build();
    CHECK_VALUE("HTTP_AUTHORIZATION", "Basic eDp5");
    build_with((as_pool_handler_options){0}, false);
    CHECK(value_of("HTTP_AUTHORIZATION") == NULL);
}

static void test_repeated_fields(void)
{
    begin("GET", "/", "/");
    field("Cookie", "a=1");
    field("X-A", "1");
    field("COOKIE", "b=2");
    field("x-a", "2");
    field("X-B", "other");
    field("X-a", "");
    field("cookie", "c=3");
    build();
    CHECK_VALUE("HTTP_COOKIE", "a=1; b=2; c=3");
    CHECK_VALUE("HTTP_X_A", "1, 2, ");
    CHECK_VALUE("HTTP_X_B", "other");
}

static void test_same_key_is_not_the_same_name(void)
{
    begin("GET", "/", "/");
    field("X-abc-Z", "1"); /* length, first and last byte agree */
    field("X-abd-Z", "2");
    build();
    CHECK_VALUE("HTTP_X_ABC_Z", "1");
    CHECK_VALUE("HTTP_X_ABD_Z", "2");
}

/* The greatest length must hold in the worst case, and one byte less must be refused. */
static void test_room(void)
{
    begin("GET", "/", "/");
    char names[AS_MAX_HEADERS][4];
    for (int i = 0; i < AS_MAX_HEADERS; i++) {
        snprintf(names[i], sizeof(names[i]), "%c%c", 'A' + i / 26, 'A' + i % 26);
        field(i % 2 ? "Z" : names[i], "");
    }
    strcpy(peer.remote_address, "ffff:ffff:ffff:ffff:ffff:ffff:255.255.255.255");
    strcpy(peer.local_address, "ffff:ffff:ffff:ffff:ffff:ffff:255.255.255.255");
    peer.secure = true;
    peer.local_port = peer.remote_port = 65535;
    request.body.length = UINT64_MAX;
    as_environment environment;
    as_pool_handler_options options = {.server_software = "s"};
    as_environment_init(&environment, &options);
    size_t greatest = greatest_len(&environment, &request);
    CHECK_INT(as_environment_build(&environment, &request, true, block, greatest - 1), AS_EFULL);
    block_len = as_environment_build(&environment, &request, true, block, greatest);
    CHECK(block_len > 0 && (size_t)block_len <= greatest);
    as_environment_free(&environment);
}

static void test_redirected(void)
{
    begin("GET", "/first?q", "/second");
    field("Content-Type", "a/b");
    request.head.known[AS_FIELD_CONTENT_TYPE] = 0;
    request.head.content_length = 3;
    const as_redirected before = {
        .count = 1,
        .method = AS_STR("POST"),
        .path = AS_STR("/first"),
        .script_name = AS_STR("/fir"),
        .path_info = AS_STR("st"),
        .query = AS_STR("q"),
        .content_type = AS_STR("a/b"),
        .content_length = 3,
        .has_content_length = true,
    };
    request.redirected = &before;
    build();
    CHECK_VALUE("REQUEST_METHOD", "GET");
    CHECK_VALUE("REQUEST_URI", "/first?q");
    CHECK_VALUE("PATH_INFO", "/second");
    CHECK(value_of("CONTENT_LENGTH") == NULL && value_of("CONTENT_TYPE") == NULL);
    CHECK_VALUE("REDIRECT_STATUS", "200");
    CHECK_VALUE("REDIRECT_URL", "/first");
    CHECK_VALUE("REDIRECT_QUERY_STRING", "q");
    CHECK_VALUE("REDIRECT_REQUEST_METHOD", "POST");
    CHECK_VALUE("REDIRECT_SCRIPT_NAME", "/fir");
    CHECK_VALUE("REDIRECT_PATH_INFO", "st");
    CHECK_VALUE("REDIRECT_CONTENT_TYPE", "a/b");
    CHECK_VALUE("REDIRECT_CONTENT_LENGTH", "3");
}

static void test_extra_without_final_nul(void)
{
    begin("GET", "/", "/");
    build_with((as_pool_handler_options){.extra = AS_STR("A\0b")}, true);
    CHECK_VALUE("A", "b");
}

int main(void)
{
    test_plain();
    test_not_mounted_and_without_query();
    test_server_names();
    test_authority_wins_over_host();
    test_content();
    test_withheld_fields();
    test_authorization();
    test_repeated_fields();
    test_same_key_is_not_the_same_name();
    test_room();
    test_redirected();
    test_extra_without_final_nul();
    return check_result("environment");
}
