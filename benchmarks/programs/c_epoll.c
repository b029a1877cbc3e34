/*
 * A frame echo on epoll: the least that a server has to do on this kernel.
 *
 * A frame is a 4-byte big-endian length and that many bytes. Of what has been read, the run of whole
 * frames goes back in one send; a length above the limit ends the connection. While the kernel takes
 * no more, the connection is not read from. Listens on a free port of 127.0.0.1 and prints it.
 */

#define _GNU_SOURCE
#include <arpa/inet.h>
#include <errno.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <unistd.h>

enum { HEADER = 4, BUFFER = 512 * 1024, MAX_PAYLOAD = BUFFER - HEADER, EVENTS = 256, BACKLOG = 1024 };

struct connection {
    int fd;
    int is_blocked; /* the kernel took less than was to be sent */
    size_t start;   /* buffer[start .. whole) is to be sent */
    size_t whole;   /* buffer[whole .. end) is not a whole frame yet */
    size_t end;
    unsigned char buffer[BUFFER];
};

static int poller;

static void fail(const char *what) {
    perror(what);
    exit(1);
}

static void watch(struct connection *c, int operation, uint32_t events) {
    struct epoll_event event = {.events = events, .data.ptr = c};
    if (epoll_ctl(poller, operation, c->fd, &event) < 0)
        fail("epoll_ctl");
}

static void accept_one(int listener) {
    int fd = accept4(listener, NULL, NULL, SOCK_NONBLOCK | SOCK_CLOEXEC);
    if (fd < 0)
        return;
    int on = 1;
    setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof on);
    struct connection *c = malloc(sizeof *c);
    if (c == NULL)
        fail("malloc");
    c->fd = fd;
    c->is_blocked = 0;
    c->start = c->whole = c->end = 0;
    watch(c, EPOLL_CTL_ADD, EPOLLIN);
}

/* Moves the mark behind the last whole frame. Returns -1 when a length is above the limit. */
static int find_whole_frames(struct connection *c) {
    while (c->end - c->whole >= HEADER) {
        uint32_t size;
        memcpy(&size, c->buffer + c->whole, HEADER);
        size = ntohl(size);
        if (size > MAX_PAYLOAD)
            return -1;
        if (c->end - c->whole - HEADER < size)
            break;
        c->whole += HEADER + size;
    }
    return 0;
}

/* Sends whole frames, and keeps what follows them. Returns -1 when the connection is broken. */
static int send_whole_frames(struct connection *c) {
    if (c->start == c->whole)
        return 0;
    ssize_t sent = send(c->fd, c->buffer + c->start, c->whole - c->start, MSG_NOSIGNAL);
    if (sent < 0 && errno != EAGAIN)
        return -1;
    if (sent > 0)
        c->start += (size_t)sent;
    int is_blocked = c->start < c->whole;
    if (is_blocked != c->is_blocked) {
        c->is_blocked = is_blocked;
        watch(c, EPOLL_CTL_MOD, is_blocked ? EPOLLOUT : EPOLLIN);
    }
    if (!is_blocked) {
        memmove(c->buffer, c->buffer + c->whole, c->end - c->whole);
        c->end -= c->whole;
        c->start = c->whole = 0;
    }
    return 0;
}

/* Reads unless something waits to be sent, and answers. Returns -1 when the connection is over. */
static int serve(struct connection *c) {
    if (!c->is_blocked) {
        ssize_t got = recv(c->fd, c->buffer + c->end, BUFFER - c->end, 0);
        if (got < 0)
            return errno == EAGAIN ? 0 : -1;
        if (got == 0)
            return -1;
        c->end += (size_t)got;
        if (find_whole_frames(c) < 0)
            return -1;
    }
    return send_whole_frames(c);
}

static int listen_on_loopback(void) {
    struct sockaddr_in address = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    socklen_t size = sizeof address;
    int listener = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
    if (listener < 0 || bind(listener, (struct sockaddr *)&address, size) < 0 || listen(listener, BACKLOG) < 0 ||
        getsockname(listener, (struct sockaddr *)&address, &size) < 0)
        fail("listen");
    printf("%d\n", ntohs(address.sin_port));
    fflush(stdout);
    return listener;
}

int main(void) {
    int listener = listen_on_loopback();
    poller = epoll_create1(EPOLL_CLOEXEC);
    /* The event without a connection is the listener's. */
    struct epoll_event listening = {.events = EPOLLIN, .data.ptr = NULL};
    if (poller < 0 || epoll_ctl(poller, EPOLL_CTL_ADD, listener, &listening) < 0)
        fail("epoll");
    for (;;) {
        struct epoll_event events[EVENTS];
        int count = epoll_wait(poller, events, EVENTS, -1);
        if (count < 0 && errno != EINTR)
            fail("epoll_wait");
        for (int i = 0; i < count; i++) {
            struct connection *c = events[i].data.ptr;
            if (c == NULL) {
                accept_one(listener);
            } else if (serve(c) < 0) {
                close(c->fd);
                free(c);
            }
        }
    }
}
