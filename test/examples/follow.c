/* Follows nameq's tree: prints FEATURE, HOST and VALUE (empty: it has gone) of all there is, then of every change. */
#include <dirent.h>
#include <stdio.h>
#include <string.h>
#include <sys/inotify.h>
#include <unistd.h>

static int inotify;
static char features[65536][256], events[65536] __attribute__((aligned(8))); /* features by watch */

static void show(const char *feature, const char *host) {
  char path[600];
  snprintf(path, sizeof path, "%s/%s", feature, host), printf("%s\t%s\t", feature, host);
  FILE *file = fopen(path, "r"); /* NULL: it has gone */
  for (int c; file && (c = getc(file)) != EOF;) if (c != '\n' && c != '\t') putchar(c);
  if (file) fclose(file);
  puts(""), fflush(stdout);
}
static void list(const char *path, int depth) { /* first watch, then list: nothing is missed */
  int watch = inotify_add_watch(inotify, path, IN_CREATE | IN_MOVED_TO | IN_DELETE | IN_ONLYDIR);
  DIR *directory = watch < 0 || watch >= 65536 ? NULL : opendir(path);
  if (directory) strncpy(features[watch], path, 255); else perror(path);
  for (struct dirent *entry; directory && (entry = readdir(directory));)
    if (entry->d_name[0] != '.') depth ? show(path, entry->d_name) : list(entry->d_name, 1);
  if (directory) closedir(directory);
}
int main(int argc, char **argv) {
  if (chdir(argc > 1 ? argv[1] : "/run/nameq/state") || chdir("features")) return perror("features"), 1;
  inotify = inotify_init1(IN_CLOEXEC);
  list(".", 0);
  for (ssize_t size; (size = read(inotify, events, sizeof events)) > 0;)
    for (struct inotify_event *e = (void *)events; (char *)e < events + size; e = (void *)(e->name + e->len)) {
      if (e->mask & IN_Q_OVERFLOW) return fputs("events were lost: start again\n", stderr), 1;
      if (strcmp(features[e->wd], ".") && e->len) show(features[e->wd], e->name);
      else if (e->mask & (IN_CREATE | IN_MOVED_TO)) list(e->name, 1);
    }
  return perror("read"), 1;
}
