/* cgi_hello.c: the smallest CGI program; what is measured is what it costs to run one. */
#include <stdio.h>

int main(void)
{
    fputs("Content-Type: text/plain\r\n\r\nHello, world\n", stdout);
    return 0;
}
