// What a hostile build tries, one attack per name. Linked statically, so that it runs in any root.
//
// The exit code is 0 when the attack worked, 1 when the kernel refused it, with the error's name on standard output,
// and 2 when there is no such attack.
#define _GNU_SOURCE
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <linux/sched.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <sched.h>
#include <signal.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/mount.h>
#include <sys/prctl.h>
#include <sys/ptrace.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/uio.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <sys/xattr.h>
#include <unistd.h>

static int refused(void) {
    printf("%s\n", strerrorname_np(errno));
    return 1;
}

static int outcome(long result) { return result < 0 ? refused() : 0; }

// Namespaces and roots.

static int user_namespace(void) { return outcome(unshare(CLONE_NEWUSER)); }

static int user_namespace_by_clone(void) {
    long child = syscall(SYS_clone, CLONE_NEWUSER | SIGCHLD, 0, 0, 0, 0);
    if (child == 0) _exit(0);
    return outcome(child);
}

static int user_namespace_by_clone3(void) {
    struct clone_args args = {.flags = CLONE_NEWUSER, .exit_signal = SIGCHLD};
    long child = syscall(SYS_clone3, &args, sizeof args);
    if (child == 0) _exit(0);
    return outcome(child);
}

static int chroot_escape(void) {
    mkdir("/tmp/x", 0755);
    int here = open("/", O_RDONLY | O_DIRECTORY);
    if (chroot("/tmp/x") < 0) return refused();
    fchdir(here);
    for (int up = 0; up < 64; up++) chdir("..");
    return outcome(chroot("."));
}

static int mount_tmpfs(void) { return outcome(mount("tmpfs", "/tmp", "tmpfs", 0, NULL)); }
static int unmount_tmp(void) { return outcome(umount2("/tmp", MNT_DETACH)); }
static int open_a_file_system(void) { return outcome(syscall(430, "tmpfs", 0)); }
static int open_a_tree(void) { return outcome(syscall(428, -100, "/", 1)); }
// Where there is no /proc, any descriptor does: the call itself is refused.
static int enter_a_namespace(void) {
    int own = open("/proc/self/ns/ipc", O_RDONLY);
    return outcome(setns(own < 0 ? 0 : own, 0));
}

// Other processes.

static int trace_process_1(void) { return outcome(ptrace(PTRACE_ATTACH, 1, 0, 0)); }

static int trace_own_child(void) {
    pid_t child = fork();
    if (child == 0) {
        pause();
        _exit(0);
    }
    int result = outcome(ptrace(PTRACE_SEIZE, child, 0, 0));
    kill(child, SIGKILL);
    return result;
}

static int read_memory_of_process_1(void) {
    char byte;
    struct iovec here = {&byte, 1}, there = {(void *)0x400000, 1};
    return outcome(process_vm_readv(1, &here, 1, &there, 1, 0));
}

static int kill_process_1(void) {
    if (kill(1, SIGKILL) < 0) return refused();
    // Process 1 of a namespace is safe from its own: the signal is taken, and nothing happens.
    sleep(1);
    printf("ignored\n");
    return 1;
}

// Programs that run are not only this one: those of the processes that watch over it, wherever they show.
static int write_programs_that_watch(void) {
    int found = 0, written = 0;
    const char *folders[] = {"/proc", "/lbx/.sandbox"};
    for (int i = 0; i < 2; i++) {
        DIR *folder = opendir(folders[i]);
        for (struct dirent *entry; folder && (entry = readdir(folder));) {
            char path[512];
            if (entry->d_name[0] == '.') continue;
            snprintf(path, sizeof path, i ? "%s/%s" : "%s/%s/exe", folders[i], entry->d_name);
            found += i;
            written += open(path, O_WRONLY) >= 0;
        }
    }
    printf("%d\n", found);
    return written ? 0 : 1;
}

static int write_own_program(void) { return outcome(open("/proc/self/exe", O_RDWR)); }
static int write_program_of_process_1(void) { return outcome(open("/proc/1/exe", O_RDWR)); }
static int root_of_process_1(void) { return outcome(open("/proc/1/root/etc", O_RDONLY)); }

// Terminals.

static int type_on_the_terminal(void) { return outcome(syscall(SYS_ioctl, 0, 0x5412L, "x")); }
static int type_with_high_bits(void) { return outcome(syscall(SYS_ioctl, 0, 0x7700000000005412L, "x")); }
static int paste_on_the_console(void) { return outcome(syscall(SYS_ioctl, 0, 0x541CL, "\3")); }

// Privileges.

// A name of this process's own: others may have left theirs.
static const char *temporary(void) {
    static char name[4096];
    const char *folder = getenv("TMPDIR");
    snprintf(name, sizeof name, "%s/attack-%d", folder ? folder : "/tmp", getpid());
    return name;
}

static int setuid_file(void) {
    int file = open(temporary(), O_CREAT | O_RDWR, 0755);
    int result = outcome(file < 0 ? file : fchmod(file, 04755));
    unlink(temporary());
    return result;
}

static int setgid_by_name(void) {
    close(open(temporary(), O_CREAT | O_RDWR, 0755));
    int result = outcome(chmod(temporary(), 02755));
    unlink(temporary());
    return result;
}

static int device_node(void) { return outcome(mknod("/tmp/disk", S_IFBLK | 0600, 8 << 8)); }

// Not an attack: what root's user id, and changes of user ids, are worth.
static int show_securebits(void) {
    printf("%d\n", prctl(PR_GET_SECUREBITS));
    return 0;
}

static int clear_securebits(void) { return outcome(prctl(PR_SET_SECUREBITS, 0)); }

static int add_a_key(void) { return outcome(syscall(SYS_add_key, "user", "lbx", "x", 1, -3)); }

// Sockets.

static int internet_socket(void) { return outcome(socket(AF_INET, SOCK_STREAM, 0)); }
static int internet6_socket(void) { return outcome(socket(AF_INET6, SOCK_DGRAM, 0)); }
static int crypto_socket(void) { return outcome(socket(38, SOCK_SEQPACKET, 0)); }
static int vm_socket(void) { return outcome(socket(40, SOCK_STREAM, 0)); }
static int packet_socket(void) { return outcome(socket(AF_PACKET, SOCK_RAW, 0)); }
static int audit_socket(void) { return outcome(socket(AF_NETLINK, SOCK_RAW, 9)); }
static int route_socket(void) { return outcome(socket(AF_NETLINK, SOCK_RAW, 0)); }
static int unix_socket(void) { return outcome(socket(AF_UNIX, SOCK_STREAM, 0)); }
static int unix_pair(void) {
    int pair[2];
    return outcome(socketpair(AF_UNIX, SOCK_STREAM, 0, pair));
}
static int socket_with_high_bits(void) {
    return outcome(syscall(SYS_socket, 0x100000000L | AF_INET, SOCK_STREAM, 0));
}

// Connects to the abstract socket that the second argument names.
static int abstract_connection(const char *name) {
    struct sockaddr_un address = {.sun_family = AF_UNIX};
    strncpy(address.sun_path + 1, name, sizeof address.sun_path - 2);
    int here = socket(AF_UNIX, SOCK_STREAM, 0);
    if (here < 0) return here;
    return connect(here, (void *)&address, offsetof(struct sockaddr_un, sun_path) + 1 + strlen(name)) < 0 ? -1 : here;
}

static int abstract_socket(const char *name) { return outcome(abstract_connection(name)); }

// An accomplice outside hands over a directory of the host, in which a file is then opened.
static int smuggle_in(const char *name) {
    int here = abstract_connection(name);
    if (here < 0) return refused();
    char byte, control[CMSG_SPACE(sizeof(int))];
    struct iovec bytes = {&byte, 1};
    struct msghdr message = {.msg_iov = &bytes, .msg_iovlen = 1, .msg_control = control, .msg_controllen = sizeof control};
    if (recvmsg(here, &message, 0) < 1 || !CMSG_FIRSTHDR(&message)) return refused();
    return outcome(openat(*(int *)CMSG_DATA(CMSG_FIRSTHDR(&message)), "secret", O_RDONLY));
}

// The network.

static struct sockaddr_in loopback(const char *port) {
    struct sockaddr_in address = {.sin_family = AF_INET, .sin_port = htons(atoi(port))};
    address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    return address;
}

// Not an attack: asks the server at this port of loopback, and prints its answer. Twice, the second time without
// waiting for the connection.
static int ask_server(const char *port) {
    struct sockaddr_in address = loopback(port);
    for (int flags = 0; flags <= SOCK_NONBLOCK; flags += SOCK_NONBLOCK) {
        int here = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC | flags, 0), one = 1;
        if (here < 0 || setsockopt(here, IPPROTO_TCP, TCP_NODELAY, &one, sizeof one) < 0) return refused();
        if (connect(here, (void *)&address, sizeof address) < 0 && errno != EINPROGRESS) return refused();
        struct pollfd ready = {here, POLLOUT, 0};
        char answer[64];
        if (poll(&ready, 1, 5000) < 1 || write(here, "hello\n", 6) < 6) return refused();
        ready.events = POLLIN;
        ssize_t length = poll(&ready, 1, 5000) < 1 ? -1 : read(here, answer, sizeof answer);
        if (length < 0) return refused();
        if (!(fcntl(here, F_GETFD) & FD_CLOEXEC) || !(fcntl(here, F_GETFL) & O_NONBLOCK) != !flags) return 3;
        printf("%.*s", (int)length, answer);
        close(here);
    }
    return 0;
}

// Tries to get a word to a port of this machine that is not the one that is served, in every way there is, and says
// which seemed to work. Whether it did, who listens there knows.
static int reach_port(const char *port) {
    struct sockaddr_in address = loopback(port), found;
    struct sockaddr_in6 address6 = {.sin6_family = AF_INET6, .sin6_port = address.sin_port, .sin6_addr = IN6ADDR_LOOPBACK_INIT};
    int worked = 0, protocols[] = {0, IPPROTO_TCP, 262};
    for (int i = 0; i < 3; i++) {
        int here = socket(AF_INET, SOCK_STREAM, protocols[i]);
        struct sockaddr nowhere = {.sa_family = AF_UNSPEC};
        connect(here, &nowhere, sizeof nowhere);
        if (sendto(here, "fast\n", 5, MSG_FASTOPEN | MSG_NOSIGNAL, (void *)&address, sizeof address) < 0)
            connect(here, (void *)&address, sizeof address);
        socklen_t length = sizeof found;
        if (getpeername(here, (void *)&found, &length) == 0 && found.sin_port == address.sin_port) worked |= 1;
        send(here, "tcp\n", 4, MSG_NOSIGNAL);
    }
    int datagrams = socket(AF_INET, SOCK_DGRAM, 0);
    worked |= (sendto(datagrams, "udp\n", 4, 0, (void *)&address, sizeof address) == 4) << 1;
    int here6 = socket(AF_INET6, SOCK_STREAM, 0);
    worked |= (connect(here6, (void *)&address6, sizeof address6) == 0) << 2;
    send(here6, "six\n", 4, MSG_NOSIGNAL);
    printf("%d\n", worked);
    return 0;
}

static int signal_process(const char *pid) { return outcome(kill(atoi(pid), SIGKILL)); }

// Leaves processes behind in every way there is: daemons, daemons of daemons, and ones that start others without end.
static int leave_processes(void) {
    for (int i = 0; i < 20; i++) {
        if (fork() > 0) continue;
        setsid();
        if (fork() > 0) _exit(0);
        for (int n = 0; n < 100; n++) {
            if (i % 2 == 0) sleep(1000);
            if (fork() > 0) _exit(0);
            usleep(1000);
        }
        sleep(1000);
    }
    return 0;
}

// Files of the host. The path is one that everybody may read and write.

// Where the roots of others, or this process's own descriptors, may lead.
static int open_by_any_way(const char *path, int flags) {
    char up[256] = "", way[4096];
    for (int i = 0; i < 64; i++) strcat(up, "../");
    const char *before[] = {"", up, "/proc/1/root", "/proc/self/root", "/proc/self/cwd/", "/proc/1/cwd/", "/tmp/"};
    int file = -1;
    for (size_t i = 0; file < 0 && i < sizeof before / sizeof *before; i++) {
        int climbs = strlen(before[i]) > 5 && before[i][strlen(before[i]) - 1] == '/' && i != 1;
        snprintf(way, sizeof way, "%s%s%s", before[i], climbs ? up : "", path);
        file = open(way, flags);
    }
    for (int pid = getppid(), n = 0; file < 0 && n < 8 && pid > 0; n++, pid--) {
        snprintf(way, sizeof way, "/proc/%d/root%s", pid, path);
        file = open(way, flags);
    }
    snprintf(way, sizeof way, "%s%s", up, path);
    for (int here = 0; file < 0 && here < 1024; here++) file = openat(here, way, flags);
    return file;
}

static int read_host_file(const char *path) {
    char byte;
    int file = open_by_any_way(path, O_RDONLY);
    return outcome(file < 0 ? file : read(file, &byte, 1));
}

// Tries whatever changes a folder or the file in it, and names what did.
static int change_host_folder(const char *folder) {
    char file[4096], other[4096];
    snprintf(file, sizeof file, "%s/file", folder);
    snprintf(other, sizeof other, "%s/other", folder);
    struct sockaddr_un address = {.sun_family = AF_UNIX};
    snprintf(address.sun_path, sizeof address.sun_path, "%s/socket", folder);
    struct { const char *name; long result; } tries[] = {
        {"open", open_by_any_way(file, O_WRONLY)},
        {"truncate", truncate(file, 0)},
        {"create", open(other, O_CREAT | O_WRONLY, 0666)},
        {"mkdir", mkdir(other, 0777)},
        {"symlink", symlink("x", other)},
        {"mkfifo", mkfifo(other, 0666)},
        {"link", link(file, other)},
        {"rename", rename(file, other)},
        {"bind", bind(socket(AF_UNIX, SOCK_STREAM, 0), (void *)&address, sizeof address)},
        {"unlink", unlink(file)},
        {"rmdir", rmdir(folder)},
    };
    int worked = 0;
    for (size_t i = 0; i < sizeof tries / sizeof *tries; i++)
        if (tries[i].result >= 0) printf("%s\n", tries[i].name), worked = 1;
    return worked ? 0 : refused();
}

// Tries whatever changes what describes a file, and is not in it, and names what did.
static int change_host_mode(const char *folder) {
    struct timespec times[2] = {{1, 0}, {1, 0}};
    struct { const char *name; long result; } tries[] = {
        {"chmod", chmod(folder, 0700)},
        {"utimensat", utimensat(AT_FDCWD, folder, times, 0)},
        {"chown", chown(folder, getuid(), getgid())},
        {"setxattr", setxattr(folder, "user.lbx", "x", 1, 0)},
    };
    int worked = 0;
    for (size_t i = 0; i < sizeof tries / sizeof *tries; i++)
        if (tries[i].result >= 0) printf("%s\n", tries[i].name), worked = 1;
    return worked ? 0 : refused();
}

// What lbx was started with, and has in memory.
static int read_secrets_of(const char *pid) {
    const char *files[] = {"environ", "mem", "maps", "auxv", "fd/0", "cwd/."};
    char path[64];
    for (size_t i = 0; i < sizeof files / sizeof *files; i++) {
        snprintf(path, sizeof path, "/proc/%s/%s", pid, files[i]);
        if (open(path, O_RDONLY) >= 0) {
            printf("%s\n", path);
            return 0;
        }
    }
    return refused();
}

// Descriptors that somebody left open.
static int inherited_descriptors(void) {
    int left = 0;
    for (int file = 3; file < 4096; file++) left += fcntl(file, F_GETFD) >= 0;
    printf("%d\n", left);
    return left ? 0 : 1;
}

// The terminal that whoever started lbx sits at.
static int controlling_terminal(void) { return outcome(open("/dev/tty", O_RDWR)); }

// Fills a folder with what a collector must not trust.
static int leave_traps(const char *folder) {
    if (chdir(folder) < 0) return refused();
    int file = open("file", O_CREAT | O_WRONLY, 0666);
    write(file, "made\n", 5);
    symlink("/etc/passwd", "link");
    mkfifo("fifo", 0666);
    mkdir("folder", 0777);
    mkfifo("folder/fifo", 0666);
    mkdir("folder/closed", 0777);
    close(open("folder/closed/inside", O_CREAT | O_WRONLY, 0600));
    chmod("folder/closed", 0);
    link("/bin/busybox", "hard");
    int here = socket(AF_UNIX, SOCK_STREAM, 0);
    struct sockaddr_un address = {.sun_family = AF_UNIX, .sun_path = "socket"};
    bind(here, (void *)&address, sizeof address);
    return 0;
}

// Using things up. Each stops by itself long before a machine without limits would suffer, and has then worked.

// Processes that start processes, up to the number in the second argument. How many there were is written to standard
// error.
static int fork_bomb(const char *number) {
    const int most = atoi(number);
    struct { int processes, over, error; } *all = mmap(NULL, 4096, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    pid_t first = getpid();
    all->processes = 1;
    while (!all->over) {
        // Counted first: a child that has not run yet is one too.
        if (__atomic_add_fetch(&all->processes, 1, __ATOMIC_SEQ_CST) > most) {
            all->over = 1;
        } else if (fork() < 0) {
            __atomic_sub_fetch(&all->processes, 1, __ATOMIC_SEQ_CST);
            all->error = errno, all->over = 1;
        }
    }
    if (getpid() != first) {
        while (all->over == 1) usleep(1000);
        _exit(0);
    }
    fprintf(stderr, "%d\n", all->processes);
    errno = all->error;
    all->over = 2;
    return outcome(all->error ? -1 : 0);
}

// 256 MB of memory, in `processes` parts that are there at the same time.
static int hog(int processes) {
    const size_t step = 1 << 20, all = 256 << 20;
    int ends[2];
    pipe(ends);
    for (int i = 1; i < processes; i++) {
        if (fork() > 0) continue;
        for (size_t had = 0; had < all / processes; had += step) memset(malloc(step), 1, step);
        write(ends[1], "x", 1);
        pause();
    }
    for (size_t had = 0; had < all / processes; had += step) {
        void *more = malloc(step);
        if (more == NULL) return refused();
        memset(more, 1, step);
    }
    char x;
    for (int i = 1; i < processes; i++) read(ends[0], &x, 1);
    return 0;
}

static int reserve_addresses(void) {
    return outcome(mmap(NULL, 1L << 40, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0) == MAP_FAILED ? -1 : 0);
}
static int memory_hog(void) { return hog(1); }
static int memory_hogs(void) { return hog(8); }

// 32 MB in a file of the folder that the second argument names.
static int fill_disk(const char *folder) {
    static char block[1 << 16];
    char path[256];
    snprintf(path, sizeof path, "%s/full", folder);
    int file = open(path, O_CREAT | O_WRONLY, 0666);
    if (file < 0) return refused();
    for (int i = 0; i < 512; i++)
        if (write(file, block, sizeof block) < 0) return refused();
    return 0;
}

// Sockets, until there are no more to be had.
static int socket_flood(void) {
    for (int i = 0; i < 100000; i++)
        if (socket(AF_INET, SOCK_STREAM, 0) < 0) {
            printf("%s\n", strerrorname_np(errno));
            return 0;
        }
    return 1;
}

static int open_files(void) {
    for (int i = 0; i < 500; i++)
        if (open("/dev/null", O_RDONLY) < 0) return refused();
    return 0;
}

// The kernel's rarely used parts.

static int io_uring(void) {
    char parameters[120] = {0};
    return outcome(syscall(425, 1, parameters));
}
static int fault_handler(void) { return outcome(syscall(SYS_userfaultfd, 1)); }
static int performance_events(void) {
    char attributes[128] = {0};
    attributes[0] = 1, attributes[4] = (char)sizeof attributes;
    return outcome(syscall(SYS_perf_event_open, attributes, 0, -1, -1, 0));
}
static int bpf_map(void) {
    char attributes[72] = {2, 0, 0, 0, 4, 0, 0, 0, 4, 0, 0, 0, 1};
    return outcome(syscall(SYS_bpf, 0, attributes, sizeof attributes));
}
static int call_of_the_future(void) { return outcome(syscall(600)); }

#ifdef __x86_64__
static int x32_call(void) { return outcome(syscall(SYS_getpid | 0x40000000)); }
static int call_of_32_bits(void) {
    long result;
    __asm__ volatile("int $0x80" : "=a"(result) : "a"(20) : "memory");
    errno = (int)-result;
    return outcome(result);
}
#endif

struct attack {
    const char *name;
    int (*run)(void);
};

#define ATTACK(name) {#name, name}

static const struct attack attacks[] = {
    ATTACK(user_namespace),
    ATTACK(user_namespace_by_clone),
    ATTACK(user_namespace_by_clone3),
    ATTACK(chroot_escape),
    ATTACK(mount_tmpfs),
    ATTACK(unmount_tmp),
    ATTACK(open_a_file_system),
    ATTACK(open_a_tree),
    ATTACK(enter_a_namespace),
    ATTACK(trace_process_1),
    ATTACK(trace_own_child),
    ATTACK(read_memory_of_process_1),
    ATTACK(kill_process_1),
    ATTACK(write_own_program),
    ATTACK(write_programs_that_watch),
    ATTACK(write_program_of_process_1),
    ATTACK(root_of_process_1),
    ATTACK(type_on_the_terminal),
    ATTACK(type_with_high_bits),
    ATTACK(paste_on_the_console),
    ATTACK(setuid_file),
    ATTACK(setgid_by_name),
    ATTACK(device_node),
    ATTACK(show_securebits),
    ATTACK(clear_securebits),
    ATTACK(add_a_key),
    ATTACK(internet_socket),
    ATTACK(internet6_socket),
    ATTACK(crypto_socket),
    ATTACK(vm_socket),
    ATTACK(packet_socket),
    ATTACK(audit_socket),
    ATTACK(route_socket),
    ATTACK(unix_socket),
    ATTACK(unix_pair),
    ATTACK(socket_with_high_bits),
    ATTACK(leave_processes),
    ATTACK(inherited_descriptors),
    ATTACK(controlling_terminal),
    ATTACK(memory_hog),
    ATTACK(memory_hogs),
    ATTACK(open_files),
    ATTACK(socket_flood),
    ATTACK(reserve_addresses),
    ATTACK(io_uring),
    ATTACK(fault_handler),
    ATTACK(performance_events),
    ATTACK(bpf_map),
    ATTACK(call_of_the_future),
#ifdef __x86_64__
    ATTACK(x32_call),
    ATTACK(call_of_32_bits),
#endif
};

// Those that need to know on what.
struct attack_on {
    const char *name;
    int (*run)(const char *);
};

static const struct attack_on attacks_on[] = {
    ATTACK(abstract_socket),
    ATTACK(smuggle_in),
    ATTACK(signal_process),
    ATTACK(leave_traps),
    ATTACK(read_host_file),
    ATTACK(change_host_folder),
    ATTACK(change_host_mode),
    ATTACK(read_secrets_of),
    ATTACK(ask_server),
    ATTACK(reach_port),
    ATTACK(fork_bomb),
    ATTACK(fill_disk),
};

int main(int count, char **arguments) {
    setvbuf(stdout, NULL, _IONBF, 0);
    for (size_t i = 0; count == 3 && i < sizeof attacks_on / sizeof *attacks_on; i++)
        if (strcmp(attacks_on[i].name, arguments[1]) == 0) return attacks_on[i].run(arguments[2]);
    for (size_t i = 0; count == 2 && i < sizeof attacks / sizeof *attacks; i++)
        if (strcmp(attacks[i].name, arguments[1]) == 0) return attacks[i].run();
    return 2;
}
