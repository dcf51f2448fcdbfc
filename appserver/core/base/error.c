#include "base/error.h"

const char *as_err_name(int err)
{
    switch (err) {
    case AS_OK:
        return "AS_OK";
#define X(name, value, sentence) \
    case AS_##name:              \
        return "AS_" #name;
        AS_ERRORS(X)
#undef X
    default:
        return "AS_?";
    }
}

const char *as_err_sentence(int err)
{
    switch (err) {
    case AS_OK:
        return "no error";
#define X(name, value, sentence) \
    case AS_##name:              \
        return sentence;
        AS_ERRORS(X)
#undef X
    default:
        return "an unknown error";
    }
}

int as_err_status(int err)
{
    switch (err) {
    case AS_EBADREQUEST:
        return 400;
    case AS_EBODYTOOLARGE:
        return 413;
    case AS_EURITOOLONG:
        return 414;
    case AS_EEXPECTATION:
        return 417;
    case AS_EHEADTOOLARGE:
        return 431;
    case AS_ENOTIMPLEMENTED:
        return 501;
    case AS_EVERSION:
        return 505;
    default:
        return 500;
    }
}
