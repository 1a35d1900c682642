// Tries system calls that a container must not have, and prints the errno of each.
#define _GNU_SOURCE
#include <errno.h>
#include <linux/bpf.h>
#include <sched.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <unistd.h>

static void say(const char *what, long result) {
    printf("%s %s\n", what, result >= 0 ? "allowed" : errno == EPERM ? "EPERM" : errno == ENOSYS ? "ENOSYS" : strerror(errno));
}

int main(void) {
    char zero[128] = {0};
    say("mount", syscall(SYS_mount, "none", "/tmp", "tmpfs", 0, 0));
    say("unshare", syscall(SYS_unshare, CLONE_NEWUSER));
    say("keyctl", syscall(SYS_keyctl, 0, -3, 0, 0, 0));
    say("bpf", syscall(SYS_bpf, BPF_PROG_LOAD, zero, sizeof zero));
    say("clone-newuser", syscall(SYS_clone, CLONE_NEWUSER | SIGCHLD, 0, 0, 0, 0));
    say("clone3", syscall(SYS_clone3, zero, 88));
    say("af_alg", socket(AF_ALG, SOCK_SEQPACKET, 0));
    say("af_vsock", socket(AF_VSOCK, SOCK_STREAM, 0));
    say("personality", syscall(SYS_personality, 0x0040000));
    say("beyond-table", syscall(999));
    say("setns", syscall(SYS_setns, -1, 0));
    say("perf_event_open", syscall(SYS_perf_event_open, zero, 0, -1, -1, 0));
    say("io_uring_setup", syscall(SYS_io_uring_setup, 1, zero));
    return 0;
}
