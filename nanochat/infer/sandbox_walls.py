"""
The walls of the sandbox: what a process takes from itself for good before it runs a stranger's program.

Each step is a function, and none needs root:

    limit         rlimits: how much CPU, memory, file, how many descriptors
    own_folder    namespaces: a view of the system of one's own, here a small file system in memory
    confine       no new privileges, no capabilities, then
                  Landlock: which files may be opened, and no TCP and no signals outwards
                  seccomp: which system calls the kernel answers at all

One wall covers another's gaps: Landlock knows files but not fork, seccomp sees a call's numbers but not the
path that one of them points to. Imported by path in a bare `python -I -S`: only the standard library, little
of it, nothing of nanochat. ctypes calls what Python has no function for; the constants are those of Linux's
headers, named after them.
"""
import ctypes
import os
import struct
import sys

# ---- prctl: what a process may set about itself (linux/prctl.h)
PR_SET_PDEATHSIG = 1  # the signal to get when the parent dies
# 0: others may not look into this process (/proc/PID/mem, ptrace), nor it through /proc/self.
PR_SET_DUMPABLE = 4
PR_SET_SECCOMP = 22
PR_SET_NO_NEW_PRIVS = 38  # setuid programs no longer help; the kernel wants it before Landlock and seccomp
SIGKILL = 9
CAPABILITY_VERSION_3 = 0x20080522  # of capset's structures: a header, then two times three words

# ---- namespaces and mounts (linux/sched.h, linux/mount.h)
CLONE_NEWUSER = 0x10000000  # users: may mount within, is nobody special without
CLONE_NEWNS = 0x00020000  # mounts
CLONE_NEWIPC = 0x08000000  # shared memory and message queues
MS_NOSUID = 2
MS_NODEV = 4

# ---- Landlock (linux/landlock.h). Its three calls have the same numbers on all machines.
SYS_LANDLOCK_CREATE_RULESET = 444
SYS_LANDLOCK_ADD_RULE = 445
SYS_LANDLOCK_RESTRICT_SELF = 446
LANDLOCK_CREATE_RULESET_VERSION = 1  # a flag: only say which version of the interface (ABI) this kernel has
LANDLOCK_RULE_PATH_BENEATH = 1
# Rights on files. A ruleset names those that it handles: they are refused but for its rules' paths and all
# beneath.
FS_WRITE_FILE = 1 << 1
FS_READ_FILE = 1 << 2
FS_READ_DIR = 1 << 3
FS_REMOVE_DIR = 1 << 4
FS_REMOVE_FILE = 1 << 5
FS_MAKE_DIR = 1 << 7
FS_MAKE_REG = 1 << 8  # regular files
FS_MAKE_SYM = 1 << 12
FS_REFER = 1 << 13  # link or rename into another folder
FS_TRUNCATE = 1 << 14
FS_IOCTL_DEV = 1 << 15
# How many of the bits that version knows; later ones as 5.
FS_RIGHTS_OF_ABI = {1: 13, 2: 14, 3: 15, 4: 15, 5: 16}
# What else a ruleset may handle. No rule allows any of it again.
NET_BIND_TCP = 1 << 0  # from ABI 4 on
NET_CONNECT_TCP = 1 << 1
SCOPE_ABSTRACT_UNIX_SOCKET = 1 << 0  # from ABI 6 on: to processes outside
SCOPE_SIGNAL = 1 << 1

MAY_READ = FS_READ_FILE | FS_READ_DIR
MAY_WRITE = (
    MAY_READ
    | FS_WRITE_FILE
    | FS_REMOVE_DIR
    | FS_REMOVE_FILE
    | FS_MAKE_DIR
    | FS_MAKE_REG
    | FS_MAKE_SYM
    | FS_REFER
    | FS_TRUNCATE
)  # but no devices, sockets or pipes
MAY_USE_NULL = MAY_READ | FS_WRITE_FILE | FS_TRUNCATE
# Others on a file's rule are an error.
MEANT_FOR_FILES = FS_WRITE_FILE | FS_READ_FILE | FS_TRUNCATE | FS_IOCTL_DEV

# ---- seccomp: a program in BPF, a language for packet filters, that the kernel runs before each system call
SECCOMP_MODE_FILTER = 2
# It sees struct seccomp_data: {int nr; u32 arch; u64 instruction_pointer; u64 args[6];}. Places in it, in
# bytes:
AT_CALL_NUMBER = 0
AT_ARCHITECTURE = 4
AT_FIRST_ARGUMENT = 16  # its lower half, on little-endian machines
# Instructions, for a machine of one register. A jump tells how many instructions to skip if true, and if
# false.
LOAD = 0x20  # BPF_LD | BPF_W | BPF_ABS: a word of seccomp_data into the register
JUMP_IF_EQUAL = 0x15  # BPF_JMP | BPF_JEQ | BPF_K
JUMP_IF_AT_LEAST = 0x35  # BPF_JMP | BPF_JGE | BPF_K
JUMP_IF_ANY_BIT = 0x45  # BPF_JMP | BPF_JSET | BPF_K
RETURN = 0x06  # BPF_RET | BPF_K
# Verdicts.
RET_ALLOW = 0x7FFF0000
# The call is not made; its lower half is the error that the caller gets, 0 for success.
RET_ERRNO = 0x00050000
RET_KILL_PROCESS = 0x80000000
EPERM = 1
ENOSYS = 38

# Which calls are not simply allowed: (verdict, name, number on x86_64, number on aarch64). Read at import, as
# behind the walls the file can no longer be read.
with open(os.path.join(os.path.dirname(__file__), "syscalls.txt"), encoding="ascii") as _file:
    CALLS = [line.split() for line in _file if not line.startswith("#")]
# For each machine the column of its numbers in syscalls.txt and its AUDIT_ARCH (linux/audit.h).
MACHINES = {"x86_64": (2, 0xC000003E), "aarch64": (3, 0xC00000B7)}
X32_SYSCALL_BIT = 0x40000000  # x86_64 offers each call a second time, with this bit
CLONE_THREAD = 0x00010000


# ---- limits
def limit(**limits: int) -> None:
    """Set hard limits, such as CPU=5 for RLIMIT_CPU; without capabilities a process cannot raise them
    again."""
    import resource  # here, as Windows has none

    for name, most in limits.items():
        kind = getattr(resource, f"RLIMIT_{name}", None)
        if kind is None:
            continue
        hard = resource.getrlimit(kind)[1]
        if hard != resource.RLIM_INFINITY:
            most = min(most, hard)
        try:  # noqa: SIM105    contextlib would cost every run its import
            resource.setrlimit(kind, (most, most))
        except (OSError, ValueError):
            pass  # macOS knows RLIMIT_AS but refuses it


# ---- namespaces
def own_folder(folder: str, room: str) -> bool:
    """Mount a file system in memory, with `room` for options, as `folder`; False where users may have no
    namespaces.

    A full disk is then the program's own, and nobody else sees its files. An ordinary user may not mount, but
    may in a user namespace, in which it holds all capabilities; they reach no farther than what belongs to
    the namespace.
    """
    if sys.platform != "linux":
        return False
    uid = os.getuid()
    gid = os.getgid()
    libc = ctypes.CDLL(None)
    if libc.unshare(CLONE_NEWUSER | CLONE_NEWNS | CLONE_NEWIPC):
        return False
    try:
        _write_text("/proc/self/setgroups", "deny")  # the kernel wants it before gid_map
        _write_text("/proc/self/uid_map", f"{uid} {uid} 1")  # within as without, one number
        _write_text("/proc/self/gid_map", f"{gid} {gid} 1")
    except OSError:
        return False
    if libc.mount(b"tmpfs", folder.encode(), b"tmpfs", MS_NOSUID | MS_NODEV, room.encode()):
        return False
    os.chdir(folder)  # the working folder was the one below the mount
    return True


def _write_text(path: str, text: str) -> None:
    with open(path, "w", encoding="ascii") as file:
        file.write(text)


# ---- all that cannot be taken back
def confine(readable: list[str], folder: str, in_memory: bool) -> str:
    """Give up capabilities, files, network and new processes for good. Returns the level reached (see
    sandbox.py).

    readable: paths to read beneath. folder: where to write, too; in_memory: own_folder() had success.
    """
    level = _confine_linux(readable, folder, in_memory) if sys.platform == "linux" else "basic"
    if level not in ("full", "walls", "seccomp"):
        limit(NPROC=0)  # counts all of the user's processes: no fork, but no threads either
    return level


def _confine_linux(readable: list[str], folder: str, in_memory: bool) -> str:
    """The order matters: a step may forbid what an earlier one needs."""
    libc = ctypes.CDLL(None, use_errno=True)
    libc.prctl(PR_SET_PDEATHSIG, SIGKILL, 0, 0, 0)  # nobody outlives whoever started it
    if libc.prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0):
        return "basic"
    libc.prctl(PR_SET_DUMPABLE, 0, 0, 0, 0)
    landlock = _restrict_files(libc, readable, folder)
    _drop_capabilities(libc)
    seccomp = _restrict_calls(libc)
    if landlock and seccomp:
        return "full" if in_memory else "walls"
    if landlock:
        return "landlock"
    return "seccomp" if seccomp else "basic"


def _drop_capabilities(libc: ctypes.CDLL) -> None:
    """Root's single powers: a root's, or those within a namespace of one's own."""
    header = struct.pack("Ii", CAPABILITY_VERSION_3, 0)  # 0: this process
    none = struct.pack("6I", 0, 0, 0, 0, 0, 0)  # effective, permitted, inheritable, each of 64 bits
    libc.capset(header, none)


# ---- Landlock
def _restrict_files(libc: ctypes.CDLL, readable: list[str], folder: str) -> bool:
    """Leave `folder` to write in, `readable` to read, no TCP, no signals outwards; False where there is no
    Landlock."""
    abi = libc.syscall(SYS_LANDLOCK_CREATE_RULESET, None, 0, LANDLOCK_CREATE_RULESET_VERSION)
    if abi < 1:
        return False
    handled = (1 << FS_RIGHTS_OF_ABI[min(abi, 5)]) - 1
    attributes = _ruleset_attributes(abi, handled)
    ruleset = libc.syscall(SYS_LANDLOCK_CREATE_RULESET, attributes, ctypes.c_size_t(len(attributes)), 0)
    if ruleset < 0:
        return False

    try:
        allowed = [(path, MAY_READ) for path in readable]
        allowed.append(("/dev/null", MAY_USE_NULL))
        allowed.append((folder, MAY_WRITE))
        for path, rights in allowed:
            if not _allow_beneath(libc, ruleset, path, rights & handled):
                return False
        return libc.syscall(SYS_LANDLOCK_RESTRICT_SELF, ruleset, 0) == 0
    finally:
        os.close(ruleset)


def _ruleset_attributes(abi: int, handled: int) -> bytes:
    """struct landlock_ruleset_attr, which grew with the interface; an older kernel refuses what it does not
    know."""
    attributes = struct.pack("Q", handled)
    if abi >= 4:
        attributes += struct.pack("Q", NET_BIND_TCP | NET_CONNECT_TCP)
    if abi >= 6:
        attributes += struct.pack("Q", SCOPE_ABSTRACT_UNIX_SOCKET | SCOPE_SIGNAL)
    return attributes


def _allow_beneath(libc: ctypes.CDLL, ruleset: int, path: str, rights: int) -> bool:
    try:
        descriptor = os.open(path, os.O_PATH | os.O_CLOEXEC)
    except OSError:
        return True  # what is not there needs no permission
    if not os.path.isdir(path):
        rights &= MEANT_FOR_FILES
    rule = struct.pack("=Qi", rights, descriptor)  # struct landlock_path_beneath_attr
    failed = libc.syscall(SYS_LANDLOCK_ADD_RULE, ruleset, LANDLOCK_RULE_PATH_BENEATH, rule, 0)
    os.close(descriptor)
    return not failed


# ---- seccomp
def _restrict_calls(libc: ctypes.CDLL) -> bool:
    program = seccomp_program(os.uname().machine, os.getpid())
    if program is None:
        return False

    class Program(ctypes.Structure):  # struct sock_fprog
        _fields_ = [("len", ctypes.c_ushort), ("filter", ctypes.c_char_p)]

    instructions = len(program) // 8
    return (
        libc.prctl(PR_SET_SECCOMP, SECCOMP_MODE_FILTER, ctypes.byref(Program(instructions, program)), 0, 0)
        == 0
    )


def seccomp_program(machine: str, pid: int) -> bytes | None:
    """The filter as packed struct sock_filter[], for a process whose id is `pid`; None on an unknown machine.

    It lists what is forbidden, not what is allowed: an honest program may need any ordinary call, and those
    that new kernels add mostly act on files, which Landlock holds.
    """
    if machine not in MACHINES:
        return None
    column, architecture = MACHINES[machine]
    allow = (RETURN, 0, 0, RET_ALLOW)
    refuse = (RETURN, 0, 0, RET_ERRNO | EPERM)
    program = [
        (LOAD, 0, 0, AT_ARCHITECTURE),
        (JUMP_IF_EQUAL, 1, 0, architecture),  # numbers mean something else for, say, 32-bit code
        (RETURN, 0, 0, RET_KILL_PROCESS),
        (LOAD, 0, 0, AT_CALL_NUMBER),
    ]
    if machine == "x86_64":
        program += [(JUMP_IF_AT_LEAST, 0, 1, X32_SYSCALL_BIT), refuse]

    verdicts = _verdicts(pid, allow, refuse)
    for call in CALLS:
        if call[column] != "-":
            verdict = verdicts[call[0]]
            # Not this call: skip its verdict.
            program.append((JUMP_IF_EQUAL, 0, len(verdict), int(call[column])))
            program += verdict
    program.append(allow)
    return b"".join(struct.pack("HBBI", *instruction) for instruction in program)


def _verdicts(pid: int, allow: tuple, refuse: tuple) -> dict[str, list[tuple]]:
    """For each word in syscalls.txt the instructions that decide a call; each list ends in a RETURN."""
    load_argument = (LOAD, 0, 0, AT_FIRST_ARGUMENT)
    return {
        "refused": [refuse],
        "pretended": [(RETURN, 0, 0, RET_ERRNO)],
        "missing": [(RETURN, 0, 0, RET_ERRNO | ENOSYS)],
        "itself": [load_argument, (JUMP_IF_EQUAL, 1, 0, pid), refuse, allow],
        # 0: itself.
        "limits": [load_argument, (JUMP_IF_EQUAL, 2, 0, pid), (JUMP_IF_EQUAL, 1, 0, 0), refuse, allow],
        "thread": [load_argument, (JUMP_IF_ANY_BIT, 1, 0, CLONE_THREAD), refuse, allow],
    }
