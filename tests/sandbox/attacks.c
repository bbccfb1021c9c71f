// What a hostile build tries, one attack per name. Linked statically, so that it runs in any root.
//
// The exit code is 0 when the attack worked, 1 when the kernel refused it, with the error's name on standard output,
// and 2 when there is no such attack.
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <linux/sched.h>
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
#include <sys/ptrace.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/uio.h>
#include <sys/un.h>
#include <sys/wait.h>
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
static int abstract_socket(const char *name) {
    struct sockaddr_un address = {.sun_family = AF_UNIX};
    strncpy(address.sun_path + 1, name, sizeof address.sun_path - 2);
    int here = socket(AF_UNIX, SOCK_STREAM, 0);
    return outcome(connect(here, (void *)&address, offsetof(struct sockaddr_un, sun_path) + 1 + strlen(name)));
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
    ATTACK(write_program_of_process_1),
    ATTACK(root_of_process_1),
    ATTACK(type_on_the_terminal),
    ATTACK(type_with_high_bits),
    ATTACK(paste_on_the_console),
    ATTACK(setuid_file),
    ATTACK(setgid_by_name),
    ATTACK(device_node),
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
    ATTACK(memory_hog),
    ATTACK(memory_hogs),
    ATTACK(open_files),
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

int main(int count, char **arguments) {
    setvbuf(stdout, NULL, _IONBF, 0);
    if (count == 3 && strcmp(arguments[1], "abstract_socket") == 0) return abstract_socket(arguments[2]);
    if (count == 3 && strcmp(arguments[1], "signal_process") == 0) return signal_process(arguments[2]);
    if (count == 3 && strcmp(arguments[1], "leave_traps") == 0) return leave_traps(arguments[2]);
    if (count == 3 && strcmp(arguments[1], "fork_bomb") == 0) return fork_bomb(arguments[2]);
    if (count == 3 && strcmp(arguments[1], "fill_disk") == 0) return fill_disk(arguments[2]);
    for (size_t i = 0; count == 2 && i < sizeof attacks / sizeof *attacks; i++)
        if (strcmp(attacks[i].name, arguments[1]) == 0) return attacks[i].run();
    return 2;
}
