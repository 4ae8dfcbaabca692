#!/usr/bin/env python3
"""Follows nameq's tree: prints FEATURE, HOST and VALUE (empty: it has gone) of all there is, then of every change."""
import ctypes, json, os, struct, sys

MOVED_TO, CREATE, DELETE, OVERFLOW = 0x80, 0x100, 0x200, 0x4000  # <sys/inotify.h>
root = os.path.join(sys.argv[1] if len(sys.argv) > 1 else "/run/nameq/state", "features")
libc = ctypes.CDLL(None, use_errno=True)
inotify = libc.inotify_init1(os.O_CLOEXEC)
features = {}  # by watch; None: the root

def watch(path, feature=None):
    number = libc.inotify_add_watch(inotify, os.fsencode(path), MOVED_TO | CREATE | DELETE)
    assert number > 0, os.strerror(ctypes.get_errno())
    features[number] = feature

def show(feature, host):
    try:
        value = json.dumps(json.loads(open(os.path.join(root, feature, host), "rb").read()))
    except FileNotFoundError:
        value = ""
    print(feature, host, value, sep="\t", flush=True)

def follow(feature):  # first watch, then list: nothing is missed
    watch(os.path.join(root, feature), feature)
    for host in os.listdir(os.path.join(root, feature)): show(feature, host)

watch(root)
for name in os.listdir(root): follow(name)
while True:
    events, at = os.read(inotify, 65536), 0
    while at < len(events):
        number, mask, _, length = struct.unpack_from("iIII", events, at)
        name = events[at + 16 : at + 16 + length].rstrip(b"\0").decode()
        at += 16 + length
        if mask & OVERFLOW: sys.exit("events were lost: start again")
        elif features[number] is not None:
            name and show(features[number], name)
        elif mask & (CREATE | MOVED_TO):
            follow(name)
