#include "http/date.h"

static const char day_names[7][4] = {"Thu", "Fri", "Sat", "Sun", "Mon", "Tue", "Wed"}; /* 1970-01-01 was a Thursday */
static const char month_names[12][4] = {"Jan", "Feb", "Mar", "Apr", "May", "Jun",
                                        "Jul", "Aug", "Sep", "Oct", "Nov", "Dec"};

enum { DAY_S = 86400, ERA_DAYS = 146097 };

static void put_two(char *out, int value)
{
    out[0] = (char)('0' + value / 10);
    out[1] = (char)('0' + value % 10);
}

/* Days to the civil calendar and back with eras of 400 years that begin in March, so that the leap day is a year's last. */
static void civil_from_days(int64_t days, int *year, int *month, int *day)
{
    days += 719468;
    int64_t era = days / ERA_DAYS;
    int64_t of_era = days - era * ERA_DAYS;
    int64_t year_of_era = (of_era - of_era / 1460 + of_era / 36524 - of_era / (ERA_DAYS - 1)) / 365;
    int64_t of_year = of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    int64_t shifted = (5 * of_year + 2) / 153;
    *day = (int)(of_year - (153 * shifted + 2) / 5 + 1);
    *month = (int)(shifted < 10 ? shifted + 3 : shifted - 9);
    *year = (int)(year_of_era + era * 400 + (*month <= 2));
}

static int64_t days_from_civil(int64_t year, int month, int day)
{
    year -= month <= 2;
    int64_t era = year / 400;
    int64_t year_of_era = year - era * 400;
    int64_t of_year = (153 * (month + (month > 2 ? -3 : 9)) + 2) / 5 + day - 1;
    int64_t of_era = year_of_era * 365 + year_of_era / 4 - year_of_era / 100 + of_year;
    return era * ERA_DAYS + of_era - 719468;
}

void as_date_format(int64_t seconds, char *out)
{
    int64_t days = seconds / DAY_S;
    int rest = (int)(seconds % DAY_S);
    int year, month, day;
    civil_from_days(days, &year, &month, &day);
    memcpy(out, "Thu, 01 Jan 1970 00:00:00 GMT", AS_DATE_LEN);
    memcpy(out, day_names[days % 7], 3);
    put_two(out + 5, day);
    memcpy(out + 8, month_names[month - 1], 3);
    put_two(out + 12, year / 100);
    put_two(out + 14, year % 100);
    put_two(out + 17, rest / 3600);
    put_two(out + 20, rest / 60 % 60);
    put_two(out + 23, rest % 60);
}

/* Reading: a cursor that fails once and stays failed. */
typedef struct reader {
    const char *at;
    const char *end;
    bool failed;
} reader;

static void expect(reader *r, const char *text)
{
    size_t len = strlen(text);
    if ((size_t)(r->end - r->at) < len || memcmp(r->at, text, len) != 0)
        r->failed = true;
    else
        r->at += len;
}

static int number(reader *r, int digits)
{
    int value = 0;
    for (int i = 0; i < digits; i++) {
        if (r->failed || r->at == r->end || *r->at < '0' || *r->at > '9') {
            r->failed = true;
            return 0;
        }
        value = value * 10 + (*r->at++ - '0');
    }
    return value;
}

static int month(reader *r)
{
    for (int i = 0; i < 12; i++) {
        if (r->end - r->at >= 3 && memcmp(r->at, month_names[i], 3) == 0) {
            r->at += 3;
            return i + 1;
        }
    }
    r->failed = true;
    return 1;
}

static int day_of_asctime(reader *r)
{
    if (!r->failed && r->at < r->end && *r->at == ' ') {
        r->at++;
        return number(r, 1);
    }
    return number(r, 2);
}

typedef struct parts {
    int year, month, day, hour, minute, second;
} parts;

static void clock_time(reader *r, parts *p)
{
    p->hour = number(r, 2);
    expect(r, ":");
    p->minute = number(r, 2);
    expect(r, ":");
    p->second = number(r, 2);
}

static void skip_letters(reader *r)
{
    const char *begin = r->at;
    while (r->at < r->end && ((*r->at >= 'A' && *r->at <= 'Z') || (*r->at >= 'a' && *r->at <= 'z')))
        r->at++;
    if (r->at - begin < 3)
        r->failed = true;
}

static int days_in(int year, int month)
{
    return (int)(days_from_civil(month < 12 ? year : year + 1, month < 12 ? month + 1 : 1, 1) -
                 days_from_civil(year, month, 1));
}

int64_t as_date_parse(as_str text)
{
    reader r = {text.ptr, text.ptr + text.len, false};
    parts p = {0};
    skip_letters(&r);
    if (r.failed)
        return -1;
    if (r.at < r.end && *r.at == ' ') { /* Sun Nov  6 08:49:37 1994 */
        r.at++;
        p.month = month(&r);
        expect(&r, " ");
        p.day = day_of_asctime(&r);
        expect(&r, " ");
        clock_time(&r, &p);
        expect(&r, " ");
        p.year = number(&r, 4);
    } else {
        expect(&r, ", ");
        p.day = number(&r, 2);
        bool rfc850 = !r.failed && r.at < r.end && *r.at == '-';
        expect(&r, rfc850 ? "-" : " ");
        p.month = month(&r);
        expect(&r, rfc850 ? "-" : " ");
        p.year = number(&r, rfc850 ? 2 : 4);
        /* Two digits: RFC 9110 wants the past when it would be over 50 years ahead; by the time that matters nobody sends this form. */
        if (rfc850)
            p.year += p.year < 70 ? 2000 : 1900;
        expect(&r, " ");
        clock_time(&r, &p);
        expect(&r, " GMT");
    }
    if (r.failed || r.at != r.end || p.year < 1970 || p.day < 1 || p.day > days_in(p.year, p.month) || p.hour > 23 ||
        p.minute > 59 || p.second > 60)
        return -1;
    return days_from_civil(p.year, p.month, p.day) * DAY_S + p.hour * 3600 + p.minute * 60 + p.second;
}
