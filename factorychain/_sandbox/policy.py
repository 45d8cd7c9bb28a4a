"""Which system calls a run may make. Everything is allowed but what stands here, with its reason.

Landlock rules files and TCP ports; these rules are for what it does not see. A refusal never kills: it
answers with an error that Python raises, so that the agent's author can read what happened.
"""

from __future__ import annotations

import errno
from collections.abc import Iterable

from factorychain._sandbox.bpf import Check, Except, Only, Refuse, Rule

_PERM, _ACCES, _NOSYS, _NOTSUP = errno.EPERM, errno.EACCES, errno.ENOSYS, errno.EOPNOTSUPP
_DONE = 0

# Address families, socket types, protocols (include/linux/socket.h, include/linux/net.h).
_UNIX, _INET, _INET6, _STREAM, _TYPE_MASK, _TCP = 1, 2, 10, 1, 0xF, 6
_MSG_FASTOPEN = 0x20000000
# include/uapi/linux/sched.h
_THREAD, _PARENT, _NAMESPACES = 0x00010000, 0x00008000, 0x7E020000
# include/uapi/linux/fcntl.h: SETOWN, SETSIG, SETOWN_EX, SETLEASE, NOTIFY
_FCNTL = (8, 10, 15, 1024, 1026)
# TIOCSTI, TIOCLINUX (typing into a terminal), FIOSETOWN, SIOCSPGRP (signals to others)
_IOCTL = (0x5412, 0x541C, 0x8901, 0x8902)
_PR_SET_DUMPABLE = 4
_PRIO_PROCESS = 0
_ACCESS_MODE, _O_TRUNC, _O_RDONLY = 0x3, 0x200, 0

_OTHER_PROCESSES = """
ptrace process_vm_readv process_vm_writev process_madvise process_mrelease kcmp pidfd_getfd
get_robust_list perf_event_open migrate_pages move_pages ioprio_set tkill setsid setpgid
"""
_NAMES_AND_MOUNTS = """
mount umount2 pivot_root chroot move_mount open_tree fsopen fsconfig fsmount fspick mount_setattr
unshare setns open_by_handle_at name_to_handle_at
"""
_KERNEL = """
bpf kexec_load kexec_file_load init_module finit_module delete_module create_module get_kernel_syms
query_module reboot swapon swapoff syslog acct quotactl quotactl_fd settimeofday clock_settime
clock_adjtime adjtimex sethostname setdomainname iopl ioperm modify_ldt personality userfaultfd
lookup_dcookie nfsservctl vhangup uselib _sysctl afs_syscall ustat sysfs lsm_set_self_attr
io_uring_setup io_uring_enter io_uring_register
"""
# Memory and queues that all processes of a user share by a number, and keys.
_SHARED = """
shmget shmat shmctl shmdt msgget msgsnd msgrcv msgctl semget semop semctl semtimedop
mq_open mq_unlink mq_timedsend mq_timedreceive mq_notify mq_getsetattr keyctl add_key request_key
"""
# What happens to files elsewhere: Landlock does not keep a folder from being watched.
_WATCHING = "inotify_init inotify_init1 inotify_add_watch fanotify_init fanotify_mark"
# Landlock does not see them, so they would reach every file of the user. They are claimed to be done:
# copying a file sets its mode and times, and in the run's own folder neither matters.
_FILE_MODES = """
chmod fchmod fchmodat fchmodat2 chown fchown lchown fchownat utime utimes futimesat utimensat
"""
_FILE_ATTRIBUTES = "setxattr lsetxattr fsetxattr removexattr lremovexattr fremovexattr"
# Memory that no limit counts while it is not mapped; who asks falls back to something else.
_UNCOUNTED = "memfd_create memfd_secret"
_STARTING = "fork vfork execve execveat"


def fixed_rules(*, processes: bool, connects: bool, truncate_ruled: bool) -> list[Rule]:
    """What holds for every run with these needs.

    Args:
        processes: it may start other processes.
        connects: it may connect to some TCP port.
        truncate_ruled: Landlock looks at truncating (ABI 3).
    """
    rules = [*_sockets(connects=connects), *_arguments(), *_starting(processes=processes)]
    for names in (_OTHER_PROCESSES, _NAMES_AND_MOUNTS, _KERNEL, _SHARED, _WATCHING):
        rules += _refuse(names, _PERM)
    rules += _refuse(_FILE_MODES, _DONE)
    rules += _refuse(_FILE_ATTRIBUTES, _NOTSUP)
    rules += _refuse(_UNCOUNTED, _NOSYS)
    return rules if truncate_ruled else [*rules, *_truncating()]


def own_rules(pid: int, *, processes: bool) -> list[Rule]:
    """What holds for one process: only itself is signalled and its limits changed.

    The kernel would let it do so to every process of the same user, the services among them. With
    processes of its own it must be able to signal them; then only Landlock's scopes stand before others.
    """
    own = (0, pid)
    rules: list[Rule] = [
        Only("prlimit64", (Check(0, own),), _PERM),
        Only("setpriority", (Check(0, (_PRIO_PROCESS,)), Check(1, own)), _PERM),
    ]
    names = ("sched_setaffinity", "sched_setscheduler", "sched_setparam", "sched_setattr")
    rules += [Only(name, (Check(0, own),), _PERM) for name in names]
    if not processes:
        signals = ("kill", "tgkill", "rt_sigqueueinfo", "rt_tgsigqueueinfo")
        rules += [Only(name, (Check(0, (pid,)),), _PERM) for name in signals]
        rules.append(Refuse("pidfd_send_signal", _PERM))
    return rules


def _refuse(names: str, error: int) -> Iterable[Rule]:
    return (Refuse(name, error) for name in names.split())


def _sockets(*, connects: bool) -> list[Rule]:
    """TCP to the outside, and pairs that are connected already (an event loop wakes itself by one).

    Another protocol than TCP (MPTCP) and a connection by the first message (TCP Fast Open) would pass by
    Landlock's rules for ports.
    """
    internet = (Check(0, (_INET, _INET6)), Check(1, (_STREAM,), _TYPE_MASK), Check(2, (0, _TCP)))
    pair = (Check(0, (_UNIX,)), Check(1, (_STREAM,), _TYPE_MASK))
    plain = {"sendto": 3, "sendmsg": 2, "sendmmsg": 3}
    rules: list[Rule] = [
        Only(name, (Check(flags, (0,), _MSG_FASTOPEN),), _PERM) for name, flags in plain.items()
    ]
    rules += [Only("socket", internet, _PERM), Only("socketpair", pair, _PERM)]
    served = ("bind", "listen") if connects else ("bind", "listen", "connect")
    return rules + [Refuse(name, _ACCES) for name in served]


def _arguments() -> list[Rule]:
    return [
        Except("ioctl", (Check(1, _IOCTL),), _PERM),
        Except("fcntl", (Check(1, _FCNTL),), _PERM),
        Except("prctl", (Check(0, (_PR_SET_DUMPABLE,)),), _PERM),
    ]


def _starting(*, processes: bool) -> list[Rule]:
    """Threads always; processes if asked for, but never with namespaces or out of the family.

    A limit on their number would count those of all runs of a user, and not bind root at all: so
    without need there are none. clone3's flags lie in memory, so libraries are sent to `clone`.
    """
    flags = _NAMESPACES | _PARENT
    if processes:
        return [Only("clone", (Check(0, (0,), flags),), _PERM), Refuse("clone3", _NOSYS)]
    thread = Check(0, (_THREAD,), flags | _THREAD)
    rules: list[Rule] = [Only("clone", (thread,), _PERM), Refuse("clone3", _NOSYS)]
    return rules + [Refuse(name, _PERM) for name in _STARTING.split()]


def _truncating() -> list[Rule]:
    """Before Landlock knew of it: by path, and by opening for reading with O_TRUNC."""
    emptying = (_ACCESS_MODE | _O_TRUNC, (_O_RDONLY | _O_TRUNC,))
    return [
        Refuse("truncate", _PERM),
        Except("open", (Check(1, emptying[1], emptying[0]),), _PERM),
        Except("openat", (Check(2, emptying[1], emptying[0]),), _PERM),
        Refuse("openat2", _NOSYS),
    ]
