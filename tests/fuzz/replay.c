/* replay.c: a main() for a fuzz target: runs it over files, for compilers without a fuzzer. Each input lies in a block of exactly its length. */
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int main(int argc, char **argv)
{
    for (int i = 1; i < argc; i++) {
        FILE *file = fopen(argv[i], "rb");
        if (file == NULL || fseek(file, 0, SEEK_END) != 0) {
            perror(argv[i]);
            return EXIT_FAILURE;
        }
        size_t size = (size_t)ftell(file);
        rewind(file);
        uint8_t *data = malloc(size > 0 ? size : 1);
        if (data == NULL || fread(data, 1, size, file) != size) {
            perror(argv[i]);
            return EXIT_FAILURE;
        }
        fclose(file);
        fprintf(stderr, "%s\n", argv[i]); /* the last line before a crash names the input */
        LLVMFuzzerTestOneInput(data, size);
        free(data);
    }
    printf("%d inputs\n", argc - 1);
    return EXIT_SUCCESS;
}
