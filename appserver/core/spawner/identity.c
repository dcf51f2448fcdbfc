#include "spawner/identity.h"

#include <errno.h>
#include <grp.h>
#include <limits.h>
#include <pwd.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "base/clock.h"
#include "base/memory.h"

enum {
    PASSWD_SIZE = 16 * 1024,
    PATH_SIZE = PATH_MAX,
};

void as_identities_init(as_identities *identities, const as_identity_rules *rules)
{
    *identities = (as_identities){.rules = *rules};
    if (rules->roots == NULL)
        return;
    identities->roots = as_strdup_list(rules->roots);
    identities->rules.roots = identities->roots;
}

void as_identities_free(as_identities *identities)
{
    as_free(identities->roots);
    *identities = (as_identities){0};
}

static bool is_known_root(const as_identities *identities, const char *root)
{
    for (const char *at = identities->roots; at != NULL && *at != '\0'; at += strlen(at) + 1) {
        if (strcmp(at, root) == 0)
            return true;
    }
    return false;
}

/* --- what the system knows of a user --- */

static int read_identity(as_identity *identity, uid_t uid, char *reason, size_t size)
{
    char text[PASSWD_SIZE];
    struct passwd entry;
    struct passwd *found = NULL;
    int error = getpwuid_r(uid, &entry, text, sizeof(text), &found);
    if (found == NULL) {
        errno = error;
        if (error != 0)
            snprintf(reason, size, "its owner (uid %u) cannot be looked up: %m", uid);
        else
            snprintf(reason, size, "its owner (uid %u) is no user of this system", uid);
        return AS_EFORBIDDEN;
    }
    identity->uid = uid;
    identity->gid = entry.pw_gid;
    identity->groups_count = AS_IDENTITY_GROUPS;
    if (getgrouplist(entry.pw_name, entry.pw_gid, identity->groups, &identity->groups_count) < 0) {
        snprintf(reason, size, "its owner %s is in more than %d groups", entry.pw_name, AS_IDENTITY_GROUPS);
        return AS_EFORBIDDEN;
    }
    return AS_OK;
}

/* The place of this user, or the one to be used for it. */
static as_identity *place_of(as_identities *identities, uid_t uid)
{
    as_identity *oldest = &identities->cache[0];
    for (int i = 0; i < AS_IDENTITY_CACHE; i++) {
        as_identity *each = &identities->cache[i];
        if (each->read_ns != 0 && each->uid == uid)
            return each;
        if (each->read_ns < oldest->read_ns)
            oldest = each;
    }
    oldest->read_ns = 0;
    return oldest;
}

static int find_owner(as_identities *identities, uid_t uid, int64_t now_ns, const as_identity **identity, char *reason,
                      size_t size)
{
    const as_identity_rules *rules = &identities->rules;
    if (uid < rules->min_uid) {
        snprintf(reason, size, "its owner has uid %u, and programs run as their owners from min_uid %u on", uid,
                 rules->min_uid);
        return AS_EFORBIDDEN;
    }
    as_identity *place = place_of(identities, uid);
    if (place->read_ns == 0 || now_ns - place->read_ns > AS_IDENTITY_FRESH_S * AS_NS_PER_S) {
        place->read_ns = 0;
        if (read_identity(place, uid, reason, size) != AS_OK)
            return AS_EFORBIDDEN;
        place->read_ns = now_ns;
    }
    if (place->gid < rules->min_gid) {
        snprintf(reason, size, "its owner's group has gid %u, and programs run as their owners from min_gid %u on",
                 place->gid, rules->min_gid);
        return AS_EFORBIDDEN;
    }
    *identity = place;
    return AS_OK;
}

/* --- the checks --- */

static int refuse_mode(char *reason, size_t size, const char *what, const char *path, const char *why, uid_t uid)
{
    snprintf(reason, size, "not run: its %s%s%s %s (it would run as uid %u)", what, path[0] != '\0' ? " " : "", path,
             why, uid);
    return AS_EFORBIDDEN;
}

static int check_one(const struct stat *info, uid_t uid, const char *what, const char *path, char *reason, size_t size)
{
    if (info->st_uid != uid && info->st_uid != 0)
        return refuse_mode(reason, size, what, path, "belongs neither to that user nor to root: chown", uid);
    if (info->st_mode & (S_IWGRP | S_IWOTH))
        return refuse_mode(reason, size, what, path, "can be written to by its group or others: chmod go-w", uid);
    return AS_OK;
}

static bool is_below(const char *root, const char *file)
{
    size_t len = strlen(root);
    return strncmp(file, root, len) == 0 && (file[len] == '/' || root[len - 1] == '/');
}

/* From the program's folder up to the root, which is one of them. */
static int check_folders(const char *root, const char *file, uid_t uid, char *reason, size_t size)
{
    char path[PATH_SIZE];
    struct stat info;
    size_t root_len = strlen(root);
    size_t len = strlen(file);
    if (len >= sizeof(path) || !is_below(root, file)) {
        snprintf(reason, size, "not run: its path is too long, or not below the folder of the rule");
        return AS_EFORBIDDEN;
    }
    memcpy(path, file, len + 1);
    while (len > root_len) {
        while (len > root_len && path[len - 1] != '/')
            len--;
        while (len > 1 && path[len - 1] == '/')
            len--;
        path[len] = '\0';
        if (stat(path, &info) < 0) {
            snprintf(reason, size, "not run: its folder %s cannot be looked at: %m", path);
            return AS_EFORBIDDEN;
        }
        int verdict = check_one(&info, uid, "folder", path, reason, size);
        if (verdict != AS_OK)
            return verdict;
    }
    return AS_OK;
}

int as_identities_find(as_identities *identities, const char *root, const char *file, int64_t now_ns,
                       const as_identity **identity, char *reason, size_t size)
{
    const as_identity_rules *rules = &identities->rules;
    struct stat info;
    *identity = NULL;
    if (!rules->is_owner && !rules->checks_owner)
        return AS_OK;
    if (!is_known_root(identities, root)) {
        snprintf(reason, size, "not run: no rule names its folder %s", root);
        return AS_EFORBIDDEN;
    }
    if (stat(file, &info) < 0) {
        snprintf(reason, size, "not run: it cannot be looked at: %m");
        return AS_EFORBIDDEN;
    }
    if (rules->is_owner && find_owner(identities, info.st_uid, now_ns, identity, reason, size) != AS_OK)
        return AS_EFORBIDDEN;
    uid_t uid = *identity != NULL ? (*identity)->uid : geteuid();
    char real_root[PATH_SIZE];
    char real_file[PATH_SIZE];
    if (realpath(root, real_root) == NULL || realpath(file, real_file) == NULL) {
        snprintf(reason, size, "not run: its real path cannot be found: %m");
        return AS_EFORBIDDEN;
    }
    if (info.st_mode & (S_ISUID | S_ISGID))
        return refuse_mode(reason, size, "file", "", "is setuid or setgid: chmod ug-s", uid);
    int verdict = check_one(&info, uid, "file", "", reason, size);
    if (verdict == AS_OK)
        verdict = check_folders(root, file, uid, reason, size);
    if (verdict != AS_OK)
        return verdict;
    /* Where symbolic links lead counts as well as where they are; out of the folder only when the rule follows them. */
    return check_folders(is_below(real_root, real_file) ? real_root : "/", real_file, uid, reason, size);
}

/* The C library's functions would do it for all threads of the parent, by signals. */
AS_NO_SANITIZE int as_identity_assume(const as_identity *identity)
{
    if (syscall(SYS_setgroups, identity->groups_count, identity->groups) < 0)
        return -1;
    if (syscall(SYS_setresgid, identity->gid, identity->gid, identity->gid) < 0)
        return -1;
    return (int)syscall(SYS_setresuid, identity->uid, identity->uid, identity->uid);
}
