/*
 * A datagram echo on two system calls: what each datagram costs when it is received and sent by itself.
 *
 * Waits in recvfrom, so there is no epoll to pay for either. Binds a free port of 127.0.0.1 and prints it.
 */

#include <arpa/inet.h>
#include <errno.h>
#include <netinet/in.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/socket.h>

enum { LARGEST = 65535 };

static void fail(const char *what) {
    perror(what);
    exit(1);
}

static int bind_to_loopback(void) {
    struct sockaddr_in address = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    socklen_t size = sizeof address;
    int fd = socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0);
    if (fd < 0 || bind(fd, (struct sockaddr *)&address, size) < 0 ||
        getsockname(fd, (struct sockaddr *)&address, &size) < 0)
        fail("bind");
    printf("%d\n", ntohs(address.sin_port));
    fflush(stdout);
    return fd;
}

int main(void) {
    static unsigned char buffer[LARGEST];
    int fd = bind_to_loopback();
    for (;;) {
        struct sockaddr_in peer;
        socklen_t size = sizeof peer;
        ssize_t got = recvfrom(fd, buffer, sizeof buffer, 0, (struct sockaddr *)&peer, &size);
        if (got < 0) {
            if (errno != EINTR)
                fail("recvfrom");
            continue;
        }
        if (sendto(fd, buffer, (size_t)got, 0, (struct sockaddr *)&peer, size) < 0)
            fail("sendto");
    }
}
