#include "http/chunked.h"

enum {
    SIZE, /* hex digits of a chunk size; at least one */
    SIZE_MORE,
    EXTENSION, /* up to the line's CR; checked, never interpreted */
    SIZE_LF,
    DATA,
    DATA_CR,
    DATA_LF,
    TRAILER, /* at the beginning of a trailer line, or of the final empty line */
    TRAILER_NAME,
    TRAILER_VALUE,
    TRAILER_LF,
    FINAL_LF,
    DONE,
};

void as_chunked_init(as_chunked *decoder)
{
    *decoder = (as_chunked){.state = SIZE};
}

static int hex_digit(char c)
{
    if (c >= '0' && c <= '9')
        return c - '0';
    if (c >= 'a' && c <= 'f')
        return c - 'a' + 10;
    if (c >= 'A' && c <= 'F')
        return c - 'A' + 10;
    return -1;
}

static bool is_text(char c)
{
    return c == '\t' || ((unsigned char)c >= 0x20 && c != 0x7f);
}

static bool is_name(char c)
{
    return c > 0x20 && c < 0x7f && strchr("\"(),/:;<=>?@[\\]{}", c) == NULL;
}

static int size_digit(as_chunked *decoder, char c)
{
    int digit = hex_digit(c);
    if (digit < 0)
        return AS_EBADREQUEST;
    if (decoder->left >> 58 !=
        0) /* would not fit in 62 bits: an overflow is a second opinion about where a body ends */
        return AS_EBADREQUEST;
    decoder->left = decoder->left << 4 | (uint64_t)digit;
    decoder->state = SIZE_MORE;
    return AS_OK;
}

static int after_digits(as_chunked *decoder, char c)
{
    if (c == '\r') {
        decoder->state = SIZE_LF;
        return AS_OK;
    }
    /* Bad white space before an extension (RFC 9112 section 7.1.1) is taken by some servers and not by others: refused. */
    if (c == ';') {
        decoder->state = EXTENSION;
        return AS_OK;
    }
    return size_digit(decoder, c);
}

static int trailer_byte(as_chunked *decoder, char c)
{
    if (++decoder->trailers > AS_MAX_TRAILERS)
        return AS_EHEADTOOLARGE;
    switch (decoder->state) {
    case TRAILER:
        if (c == '\r')
            decoder->state = FINAL_LF;
        else if (is_name(c))
            decoder->state = TRAILER_NAME;
        else
            return AS_EBADREQUEST;
        return AS_OK;
    case TRAILER_NAME:
        if (c == ':')
            decoder->state = TRAILER_VALUE;
        else if (!is_name(c))
            return AS_EBADREQUEST;
        return AS_OK;
    case TRAILER_VALUE:
        if (c == '\r')
            decoder->state = TRAILER_LF;
        else if (!is_text(c))
            return AS_EBADREQUEST;
        return AS_OK;
    case TRAILER_LF:
        decoder->state = TRAILER;
        return c == '\n' ? AS_OK : AS_EBADREQUEST;
    default:
        decoder->state = DONE;
        return c == '\n' ? AS_OK : AS_EBADREQUEST;
    }
}

/* One byte that is not chunk data. */
static int framing_byte(as_chunked *decoder, char c)
{
    switch (decoder->state) {
    case SIZE:
        decoder->line = 1;
        decoder->left = 0;
        return size_digit(decoder, c);
    case SIZE_MORE:
    case EXTENSION:
        if (++decoder->line > AS_MAX_CHUNK_LINE)
            return AS_EBADREQUEST;
        if (decoder->state == SIZE_MORE)
            return after_digits(decoder, c);
        if (c == '\r')
            decoder->state = SIZE_LF;
        else if (!is_text(c))
            return AS_EBADREQUEST;
        return AS_OK;
    case SIZE_LF:
        decoder->state = decoder->left > 0 ? DATA : TRAILER;
        return c == '\n' ? AS_OK : AS_EBADREQUEST;
    case DATA_CR:
        decoder->state = DATA_LF;
        return c == '\r' ? AS_OK : AS_EBADREQUEST;
    case DATA_LF:
        decoder->state = SIZE;
        return c == '\n' ? AS_OK : AS_EBADREQUEST;
    default:
        return trailer_byte(decoder, c);
    }
}

int as_chunked_decode(as_chunked *decoder, const char *buf, size_t len, as_str *data, bool *done)
{
    size_t at = 0;
    *data = AS_STR_NONE;
    *done = decoder->state == DONE;
    if (len == 0 || *done)
        return AS_EAGAIN;
    if (len > INT32_MAX)
        len = INT32_MAX;
    while (at < len && decoder->state != DATA && decoder->state != DONE) {
        int err = framing_byte(decoder, buf[at]);
        if (err != AS_OK)
            return err;
        at++;
    }
    if (decoder->state == DATA && at < len) {
        size_t n = len - at < decoder->left ? len - at : (size_t)decoder->left;
        *data = as_str_of(buf + at, n);
        decoder->left -= n;
        at += n;
        if (decoder->left == 0)
            decoder->state = DATA_CR;
    }
    *done = decoder->state == DONE;
    return (int)at;
}
