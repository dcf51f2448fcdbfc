#include "handler/mime.h"

#include "base/memory.h"

/* An array sorted by extension: types are looked up when a file is loaded, not when a cached one is served. */
typedef struct mime_item {
    as_str extension;
    as_str type;
} mime_item;

struct as_mime {
    mime_item *items;
    uint32_t len;
    uint32_t capacity;
};

static const as_str UNKNOWN_TYPE = {"application/octet-stream", sizeof("application/octet-stream") - 1};

/* Text types say their charset (RFC 9110 section 8.3.2), because browsers guess otherwise. JavaScript is
 * text/javascript by RFC 9239, XML is text/xml in effect by RFC 7303; JSON and SVG are UTF-8 by their own definition
 * and carry no parameter. */
static const char *const BUILT_IN[][2] = {
    {"3gp", "video/3gpp"},
    {"7z", "application/x-7z-compressed"},
    {"aac", "audio/aac"},
    {"apk", "application/vnd.android.package-archive"},
    {"apng", "image/apng"},
    {"appcache", "text/cache-manifest; charset=utf-8"},
    {"atom", "application/atom+xml"},
    {"avi", "video/x-msvideo"},
    {"avif", "image/avif"},
    {"bin", "application/octet-stream"},
    {"bmp", "image/bmp"},
    {"br", "application/x-brotli"},
    {"bz2", "application/x-bzip2"},
    {"c", "text/plain; charset=utf-8"},
    {"cbor", "application/cbor"},
    {"cer", "application/pkix-cert"},
    {"cfg", "text/plain; charset=utf-8"},
    {"cjs", "text/javascript; charset=utf-8"},
    {"conf", "text/plain; charset=utf-8"},
    {"crl", "application/pkix-crl"},
    {"crt", "application/x-x509-ca-cert"},
    {"css", "text/css; charset=utf-8"},
    {"csv", "text/csv; charset=utf-8"},
    {"cur", "image/x-icon"},
    {"deb", "application/vnd.debian.binary-package"},
    {"djvu", "image/vnd.djvu"},
    {"doc", "application/msword"},
    {"docx", "application/vnd.openxmlformats-officedocument.wordprocessingml.document"},
    {"dtd", "application/xml-dtd"},
    {"eml", "message/rfc822"},
    {"eot", "application/vnd.ms-fontobject"},
    {"eps", "application/postscript"},
    {"epub", "application/epub+zip"},
    {"exe", "application/vnd.microsoft.portable-executable"},
    {"flac", "audio/flac"},
    {"flv", "video/x-flv"},
    {"geojson", "application/geo+json"},
    {"gif", "image/gif"},
    {"glb", "model/gltf-binary"},
    {"gltf", "model/gltf+json"},
    {"gpx", "application/gpx+xml"},
    {"gz", "application/gzip"},
    {"h", "text/plain; charset=utf-8"},
    {"heic", "image/heic"},
    {"heif", "image/heif"},
    {"htm", "text/html; charset=utf-8"},
    {"html", "text/html; charset=utf-8"},
    {"ico", "image/x-icon"},
    {"ics", "text/calendar; charset=utf-8"},
    {"iso", "application/octet-stream"},
    {"jar", "application/java-archive"},
    {"jfif", "image/jpeg"},
    {"jpeg", "image/jpeg"},
    {"jpg", "image/jpeg"},
    {"js", "text/javascript; charset=utf-8"},
    {"json", "application/json"},
    {"jsonld", "application/ld+json"},
    {"jxl", "image/jxl"},
    {"kml", "application/vnd.google-earth.kml+xml"},
    {"kmz", "application/vnd.google-earth.kmz"},
    {"log", "text/plain; charset=utf-8"},
    {"m3u8", "application/vnd.apple.mpegurl"},
    {"m4a", "audio/mp4"},
    {"m4v", "video/mp4"},
    {"map", "application/json"},
    {"md", "text/markdown; charset=utf-8"},
    {"mid", "audio/midi"},
    {"midi", "audio/midi"},
    {"mjs", "text/javascript; charset=utf-8"},
    {"mkv", "video/x-matroska"},
    {"mov", "video/quicktime"},
    {"mp3", "audio/mpeg"},
    {"mp4", "video/mp4"},
    {"mpd", "application/dash+xml"},
    {"mpeg", "video/mpeg"},
    {"mpg", "video/mpeg"},
    {"msi", "application/x-msi"},
    {"odg", "application/vnd.oasis.opendocument.graphics"},
    {"odp", "application/vnd.oasis.opendocument.presentation"},
    {"ods", "application/vnd.oasis.opendocument.spreadsheet"},
    {"odt", "application/vnd.oasis.opendocument.text"},
    {"oga", "audio/ogg"},
    {"ogg", "audio/ogg"},
    {"ogv", "video/ogg"},
    {"opus", "audio/ogg"},
    {"otf", "font/otf"},
    {"parquet", "application/vnd.apache.parquet"},
    {"pdf", "application/pdf"},
    {"pem", "application/x-pem-file"},
    {"png", "image/png"},
    {"ppt", "application/vnd.ms-powerpoint"},
    {"pptx", "application/vnd.openxmlformats-officedocument.presentationml.presentation"},
    {"ps", "application/postscript"},
    {"py", "text/x-python; charset=utf-8"},
    {"rar", "application/vnd.rar"},
    {"rdf", "application/rdf+xml"},
    {"rpm", "application/x-rpm"},
    {"rss", "application/rss+xml"},
    {"rst", "text/x-rst; charset=utf-8"},
    {"rtf", "application/rtf"},
    {"sh", "text/x-sh; charset=utf-8"},
    {"sql", "application/sql"},
    {"stl", "model/stl"},
    {"svg", "image/svg+xml"},
    {"tar", "application/x-tar"},
    {"tgz", "application/gzip"},
    {"tif", "image/tiff"},
    {"tiff", "image/tiff"},
    {"toml", "application/toml"},
    {"torrent", "application/x-bittorrent"},
    {"ts", "video/mp2t"},
    {"tsv", "text/tab-separated-values; charset=utf-8"},
    {"ttc", "font/collection"},
    {"ttf", "font/ttf"},
    {"txt", "text/plain; charset=utf-8"},
    {"usdz", "model/vnd.usdz+zip"},
    {"vcf", "text/vcard; charset=utf-8"},
    {"vtt", "text/vtt; charset=utf-8"},
    {"wasm", "application/wasm"},
    {"wav", "audio/wav"},
    {"weba", "audio/webm"},
    {"webm", "video/webm"},
    {"webmanifest", "application/manifest+json"},
    {"webp", "image/webp"},
    {"wmv", "video/x-ms-wmv"},
    {"woff", "font/woff"},
    {"woff2", "font/woff2"},
    {"xht", "application/xhtml+xml"},
    {"xhtml", "application/xhtml+xml"},
    {"xls", "application/vnd.ms-excel"},
    {"xlsx", "application/vnd.openxmlformats-officedocument.spreadsheetml.sheet"},
    {"xml", "text/xml; charset=utf-8"},
    {"xsd", "application/xml"},
    {"xsl", "text/xml; charset=utf-8"},
    {"xslt", "application/xslt+xml"},
    {"xz", "application/x-xz"},
    {"yaml", "application/yaml"},
    {"yml", "application/yaml"},
    {"zip", "application/zip"},
    {"zst", "application/zstd"},
};

/* Orders like strcasecmp over runs of bytes. */
static int compare_nocase(as_str a, as_str b)
{
    size_t len = a.len < b.len ? a.len : b.len;
    int order = len > 0 ? strncasecmp(a.ptr, b.ptr, len) : 0;
    if (order != 0)
        return order;
    return a.len < b.len ? -1 : a.len > b.len;
}

/* Where `extension` is, or where it belongs. */
static uint32_t find_place(const as_mime *mime, as_str extension, bool *found)
{
    uint32_t low = 0;
    uint32_t high = mime->len;
    *found = false;
    while (low < high) {
        uint32_t middle = low + (high - low) / 2;
        int order = compare_nocase(mime->items[middle].extension, extension);
        if (order == 0) {
            *found = true;
            return middle;
        }
        if (order < 0)
            low = middle + 1;
        else
            high = middle;
    }
    return low;
}

as_mime *as_mime_new(void)
{
    as_mime *mime = as_alloc(sizeof(*mime));
    for (size_t i = 0; i < AS_COUNT_OF(BUILT_IN); i++)
        as_mime_set(mime, as_str_from(BUILT_IN[i][0]), as_str_from(BUILT_IN[i][1]));
    return mime;
}

void as_mime_free(as_mime *mime)
{
    if (mime == NULL)
        return;
    for (uint32_t i = 0; i < mime->len; i++) {
        as_free((char *)mime->items[i].extension.ptr);
        as_free((char *)mime->items[i].type.ptr);
    }
    as_free(mime->items);
    as_free(mime);
}

void as_mime_set(as_mime *mime, as_str extension, as_str type)
{
    bool found;
    uint32_t place = find_place(mime, extension, &found);
    if (found) {
        as_free((char *)mime->items[place].type.ptr);
        mime->items[place].type = as_str_of(as_strdup(type), type.len);
        return;
    }
    if (mime->len == mime->capacity) {
        mime->capacity = mime->capacity ? 2 * mime->capacity : 256;
        mime->items = as_realloc(mime->items, mime->capacity * sizeof(mime->items[0]));
    }
    memmove(&mime->items[place + 1], &mime->items[place], (mime->len - place) * sizeof(mime->items[0]));
    mime->items[place].extension = as_str_of(as_strdup(extension), extension.len);
    mime->items[place].type = as_str_of(as_strdup(type), type.len);
    mime->len++;
}

bool as_mime_has(const as_mime *mime, as_str extension)
{
    bool found;
    find_place(mime, extension, &found);
    return found;
}

/* The longest known extension wins, so that a configured "tar.gz" goes before "gz". */
as_str as_mime_of(const as_mime *mime, as_str file_name)
{
    const char *slash = memrchr(file_name.ptr, '/', file_name.len);
    const char *end = file_name.ptr + file_name.len;
    const char *at = slash ? slash + 1 : file_name.ptr;
    while ((at = memchr(at, '.', (size_t)(end - at))) != NULL) {
        at++;
        bool found;
        uint32_t place = find_place(mime, as_str_of(at, (size_t)(end - at)), &found);
        if (found)
            return mime->items[place].type;
    }
    return UNKNOWN_TYPE;
}
