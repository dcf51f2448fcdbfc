/* scan.c: byte classes by comparison in vector registers.
 *
 * Both classes are ranges, so a block of 16 or 32 bytes takes two or three comparisons and no table. SSE2 belongs to every x86-64 and NEON to every AArch64;
 * AVX2 is looked for once, before main(). The string instructions of SSE4.2 (pcmpestri), which can do the same, were not taken: a comparison per range has a
 * fifth of their latency. What is shorter than a block goes byte by byte: a block never reads outside the caller's bytes. */
#include "base/scan.h"

#if defined(__x86_64__)
#include <immintrin.h>
#elif defined(__aarch64__)
#include <arm_neon.h>
#endif

static bool always(void)
{
    return true;
}

static bool is_field_value(unsigned char c)
{
    return (c >= 0x20 && c != 0x7f) || c == '\t';
}

static bool is_visible(unsigned char c)
{
    return c > 0x20 && c < 0x7f;
}

static size_t field_value_plain(const char *p, size_t len)
{
    size_t at = 0;
    while (at < len && is_field_value((unsigned char)p[at]))
        at++;
    return at;
}

static size_t visible_plain(const char *p, size_t len)
{
    size_t at = 0;
    while (at < len && is_visible((unsigned char)p[at]))
        at++;
    return at;
}

#if defined(__x86_64__)

/* Signed comparison: bytes from 0x80 on are negative, so "less than 0x20" finds them too and they are taken out again. */

static unsigned bad_value_sse2(__m128i block)
{
    __m128i low =
        _mm_andnot_si128(_mm_cmplt_epi8(block, _mm_setzero_si128()), _mm_cmplt_epi8(block, _mm_set1_epi8(0x20)));
    __m128i control = _mm_andnot_si128(_mm_cmpeq_epi8(block, _mm_set1_epi8('\t')), low);
    return (unsigned)_mm_movemask_epi8(_mm_or_si128(control, _mm_cmpeq_epi8(block, _mm_set1_epi8(0x7f))));
}

/* Negative bytes are less than 0x21 and so bad as well. */
static unsigned bad_visible_sse2(__m128i block)
{
    __m128i low = _mm_cmplt_epi8(block, _mm_set1_epi8(0x21));
    return (unsigned)_mm_movemask_epi8(_mm_or_si128(low, _mm_cmpeq_epi8(block, _mm_set1_epi8(0x7f))));
}

static size_t field_value_sse2(const char *p, size_t len)
{
    size_t at = 0;
    for (; len - at >= 16; at += 16) {
        unsigned bad = bad_value_sse2(_mm_loadu_si128((const __m128i *)(p + at)));
        if (bad != 0)
            return at + (unsigned)__builtin_ctz(bad);
    }
    return at + field_value_plain(p + at, len - at);
}

static size_t visible_sse2(const char *p, size_t len)
{
    size_t at = 0;
    for (; len - at >= 16; at += 16) {
        unsigned bad = bad_visible_sse2(_mm_loadu_si128((const __m128i *)(p + at)));
        if (bad != 0)
            return at + (unsigned)__builtin_ctz(bad);
    }
    return at + visible_plain(p + at, len - at);
}

static bool has_avx2(void)
{
    __builtin_cpu_init();
    return __builtin_cpu_supports("avx2");
}

__attribute__((target("avx2"))) static size_t field_value_avx2(const char *p, size_t len)
{
    const __m256i zero = _mm256_setzero_si256(), space = _mm256_set1_epi8(0x20);
    const __m256i tab = _mm256_set1_epi8('\t'), del = _mm256_set1_epi8(0x7f);
    size_t at = 0;
    for (; len - at >= 32; at += 32) {
        __m256i block = _mm256_loadu_si256((const __m256i *)(p + at));
        __m256i low = _mm256_andnot_si256(_mm256_cmpgt_epi8(zero, block), _mm256_cmpgt_epi8(space, block));
        __m256i control = _mm256_andnot_si256(_mm256_cmpeq_epi8(block, tab), low);
        unsigned bad = (unsigned)_mm256_movemask_epi8(_mm256_or_si256(control, _mm256_cmpeq_epi8(block, del)));
        if (bad != 0)
            return at + (unsigned)__builtin_ctz(bad);
    }
    return at + field_value_sse2(p + at, len - at);
}

__attribute__((target("avx2"))) static size_t visible_avx2(const char *p, size_t len)
{
    const __m256i above = _mm256_set1_epi8(0x21), del = _mm256_set1_epi8(0x7f);
    size_t at = 0;
    for (; len - at >= 32; at += 32) {
        __m256i block = _mm256_loadu_si256((const __m256i *)(p + at));
        __m256i low = _mm256_cmpgt_epi8(above, block);
        unsigned bad = (unsigned)_mm256_movemask_epi8(_mm256_or_si256(low, _mm256_cmpeq_epi8(block, del)));
        if (bad != 0)
            return at + (unsigned)__builtin_ctz(bad);
    }
    return at + visible_sse2(p + at, len - at);
}

#elif defined(__aarch64__)

/* The place of the first byte that is 0xff; 16 when there is none. Shifting and narrowing leaves four bits for each byte. */
static unsigned first_set(uint8x16_t bad)
{
    uint64_t nibbles = vget_lane_u64(vreinterpret_u64_u8(vshrn_n_u16(vreinterpretq_u16_u8(bad), 4)), 0);
    return nibbles == 0 ? 16 : (unsigned)__builtin_ctzll(nibbles) / 4;
}

static size_t field_value_neon(const char *p, size_t len)
{
    size_t at = 0;
    for (; len - at >= 16; at += 16) {
        uint8x16_t block = vld1q_u8((const uint8_t *)p + at);
        uint8x16_t low = vbicq_u8(vcltq_u8(block, vdupq_n_u8(0x20)), vceqq_u8(block, vdupq_n_u8('\t')));
        unsigned first = first_set(vorrq_u8(low, vceqq_u8(block, vdupq_n_u8(0x7f))));
        if (first < 16)
            return at + first;
    }
    return at + field_value_plain(p + at, len - at);
}

static size_t visible_neon(const char *p, size_t len)
{
    size_t at = 0;
    for (; len - at >= 16; at += 16) {
        uint8x16_t block = vld1q_u8((const uint8_t *)p + at);
        unsigned first = first_set(vorrq_u8(vcltq_u8(block, vdupq_n_u8(0x21)), vcgeq_u8(block, vdupq_n_u8(0x7f))));
        if (first < 16)
            return at + first;
    }
    return at + visible_plain(p + at, len - at);
}

#endif

const as_scanner as_scanners[] = {
    {"plain", always, field_value_plain, visible_plain},
#if defined(__x86_64__)
    {"sse2", always, field_value_sse2, visible_sse2},
    {"avx2", has_avx2, field_value_avx2, visible_avx2},
#elif defined(__aarch64__)
    {"neon", always, field_value_neon, visible_neon},
#endif
};
const int as_scanners_len = (int)AS_COUNT_OF(as_scanners);

static const as_scanner *best = &as_scanners[0];

__attribute__((constructor)) static void choose_best(void)
{
    for (int i = 0; i < as_scanners_len; i++) {
        if (as_scanners[i].usable())
            best = &as_scanners[i];
    }
}

size_t as_scan_field_value(const char *p, size_t len)
{
    return best->field_value(p, len);
}

size_t as_scan_visible(const char *p, size_t len)
{
    return best->visible(p, len);
}
