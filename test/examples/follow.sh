#!/bin/sh
# Follows nameq's tree: prints FEATURE, HOST and VALUE (empty: it has gone) of all there is, then of every change.
# Needs inotifywait (package inotify-tools).
features=${1:-/run/nameq/state}/features

show() { # FILE...: a file that is not there has gone (and a pattern that matched nothing is no file)
  for file; do
    host=${file##*/} feature=${file%/*} feature=${feature##*/}
    [ "$host" = '*' ] || printf '%s\t%s\t%s\n' "$feature" "$host" "$(tr -d '\n\t' 2>/dev/null < "$file")"
  done
}

inotifywait -m -r -e create -e moved_to -e delete --format '%e %w%f' "$features" 2>&1 |
  while read -r event path; do
    case "$event $path" in
      'Watches established.') show "$features"/*/* ;; # first watch, then list: nothing is missed
      CREATE,ISDIR*) show "${path%/}"/* ;;
      MOVED_TO\ * | DELETE\ *) show "$path" ;;
    esac
  done
