/* memory.h: three lifetimes, three allocators.
 *
 * Start-up and structural memory: as_alloc() and friends, which end the process when there is none left (the
 * supervisor starts another core). A request's memory: an arena, freed in one call. Buffers that grow with what
 * a client sends have limits with names and use as_try_realloc(), whose failure costs that request alone. */
#ifndef AS_BASE_MEMORY_H
#define AS_BASE_MEMORY_H

#include "base/str.h"

/* Zeroed memory, or the process dies with a line on stderr that says how much was asked for. Any thread. */
void *as_alloc(size_t size);
/* Likewise, and alone on its cache lines: for what one thread writes while others read its neighbours. */
void *as_alloc_lines(size_t size);
/* Likewise; contents kept, the new part is not zeroed. */
void *as_realloc(void *ptr, size_t size);
void as_free(void *ptr);
char *as_strdup(as_str s); /* NUL-terminated copy, freed with as_free() */
/* Likewise of a list of strings, each ended by NUL and the list by an empty one. */
char *as_strdup_list(const char *list);

/* NULL when there is no memory; the old block is then still there. */
AS_MUST_USE void *as_try_realloc(void *ptr, size_t size);

/* An arena: pointer-bump memory that is released as a whole. One owner thread.
 * The first block is kept over as_arena_reset() so that a reused request allocates nothing. */
typedef struct as_arena_block as_arena_block;
typedef struct as_arena {
    as_arena_block *blocks; /* newest first; the last one is the kept first block */
    char *next;
    char *end;
} as_arena;

#define AS_ARENA_BLOCK_SIZE 4096

void as_arena_init(as_arena *arena);
/* Frees every block but the first. Pointers from the arena are dead afterwards. */
void as_arena_reset(as_arena *arena);
void as_arena_free(as_arena *arena);
/* 8-byte-aligned, not zeroed; dies when there is no memory (callers' sizes are bounded by the limits). */
void *as_arena_alloc(as_arena *arena, size_t size);
as_str as_arena_copy(as_arena *arena, as_str s); /* the copy is followed by a NUL */
as_str as_arena_printf(as_arena *arena, const char *format, ...) AS_PRINTF(2, 3);

#endif
