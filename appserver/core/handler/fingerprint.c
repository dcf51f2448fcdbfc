#include "handler/fingerprint.h"

#include <unistd.h>

enum { PIECE = 4096 };

/* Multiply and fold, as in wyhash; the constants are its own. */
static uint64_t fold(uint64_t a, uint64_t b)
{
    __uint128_t product = (__uint128_t)a * b;
    return (uint64_t)product ^ (uint64_t)(product >> 64);
}

static uint64_t add(uint64_t hash, const char *data, size_t len)
{
    static const uint64_t secret[] = {0x2d358dccaa6c78a5ull, 0x8bb84b93962eacc9ull, 0x4b33a62ed433d4a3ull};
    hash = fold(hash ^ secret[0], (uint64_t)len ^ secret[1]);
    uint64_t word;
    for (; len >= sizeof(word); data += sizeof(word), len -= sizeof(word)) {
        memcpy(&word, data, sizeof(word));
        hash = fold(hash ^ word, secret[2]);
    }
    word = 0;
    if (len > 0)
        memcpy(&word, data, len);
    return fold(hash ^ word, secret[1]);
}

static uint64_t add_memory(uint64_t hash, as_str body)
{
    size_t left = body.len < AS_FINGERPRINT_BODY ? body.len : AS_FINGERPRINT_BODY;
    for (size_t at = 0; at < left; at += PIECE)
        hash = add(hash, body.ptr + at, left - at < PIECE ? left - at : PIECE);
    return hash;
}

static uint64_t add_file(uint64_t hash, int fd)
{
    char piece[PIECE];
    for (int64_t at = 0; at < AS_FINGERPRINT_BODY;) {
        ssize_t n = pread(fd, piece, sizeof(piece), at);
        if (n <= 0)
            break;
        hash = add(hash, piece, (size_t)n);
        at += n;
    }
    return hash;
}

uint64_t as_fingerprint_text(as_str text)
{
    return add(0, text.ptr, text.len);
}

uint64_t as_fingerprint(const as_request *request, uint64_t where)
{
    const as_head *head = &request->head;
    const as_request_body *body = &request->body;
    uint64_t hash = add(where, head->method_text.ptr, head->method_text.len);
    hash = add(hash, head->target.ptr, head->target.len);
    hash = add(hash, (const char *)&body->length, sizeof(body->length));
    return body->fd >= 0 ? add_file(hash, body->fd) : add_memory(hash, body->memory);
}
