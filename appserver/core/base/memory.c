#include "base/memory.h"

#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>

struct as_arena_block {
    as_arena_block *older;
    size_t size;
};

static _Noreturn void die_of_memory(size_t size)
{
    fprintf(stderr, "core: out of memory: %zu bytes were asked for\n", size);
    abort();
}

void *as_alloc(size_t size)
{
    void *ptr = calloc(1, size ? size : 1);
    if (ptr == NULL)
        die_of_memory(size);
    return ptr;
}

void *as_alloc_lines(size_t size)
{
    void *ptr = NULL;
    size = (size + AS_CACHE_LINE - 1) & ~(size_t)(AS_CACHE_LINE - 1);
    if (posix_memalign(&ptr, AS_CACHE_LINE, size) != 0)
        die_of_memory(size);
    return memset(ptr, 0, size);
}

void *as_realloc(void *ptr, size_t size)
{
    void *moved = realloc(ptr, size ? size : 1);
    if (moved == NULL)
        die_of_memory(size);
    return moved;
}

void *as_try_realloc(void *ptr, size_t size)
{
    return realloc(ptr, size ? size : 1);
}

void as_free(void *ptr)
{
    free(ptr);
}

char *as_strdup(as_str s)
{
    char *copy = as_alloc(s.len + 1);
    if (s.len > 0)
        memcpy(copy, s.ptr, s.len);
    return copy;
}

char *as_strdup_list(const char *list)
{
    const char *end = list;
    while (*end != '\0')
        end += strlen(end) + 1;
    return as_strdup(as_str_of(list, (size_t)(end - list) + 1));
}

static void add_block(as_arena *arena, size_t size)
{
    as_arena_block *block = malloc(sizeof(*block) + size);
    if (block == NULL)
        die_of_memory(size);
    block->older = arena->blocks;
    block->size = size;
    arena->blocks = block;
    arena->next = (char *)(block + 1);
    arena->end = arena->next + size;
}

void as_arena_init(as_arena *arena)
{
    *arena = (as_arena){0};
}

void as_arena_reset(as_arena *arena)
{
    as_arena_block *block = arena->blocks;
    if (block == NULL)
        return;
    while (block->older != NULL) {
        as_arena_block *older = block->older;
        free(block);
        block = older;
    }
    arena->blocks = block;
    arena->next = (char *)(block + 1);
    arena->end = arena->next + block->size;
}

void as_arena_free(as_arena *arena)
{
    as_arena_block *block = arena->blocks;
    while (block != NULL) {
        as_arena_block *older = block->older;
        free(block);
        block = older;
    }
    *arena = (as_arena){0};
}

void *as_arena_alloc(as_arena *arena, size_t size)
{
    size = (size + 7) & ~(size_t)7;
    if ((size_t)(arena->end - arena->next) < size)
        add_block(arena, size > AS_ARENA_BLOCK_SIZE ? size : AS_ARENA_BLOCK_SIZE);
    void *ptr = arena->next;
    arena->next += size;
    return ptr;
}

as_str as_arena_copy(as_arena *arena, as_str s)
{
    char *copy = as_arena_alloc(arena, s.len + 1);
    if (s.len > 0)
        memcpy(copy, s.ptr, s.len);
    copy[s.len] = '\0';
    return (as_str){copy, s.len};
}

as_str as_arena_printf(as_arena *arena, const char *format, ...)
{
    va_list args;
    va_start(args, format);
    int len = vsnprintf(NULL, 0, format, args);
    va_end(args);
    assert(len >= 0);
    char *text = as_arena_alloc(arena, (size_t)len + 1);
    va_start(args, format);
    vsnprintf(text, (size_t)len + 1, format, args);
    va_end(args);
    return (as_str){text, (size_t)len};
}
