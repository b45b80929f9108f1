// rawloop in C: the least that any server can do per delivery. It does what the
// Go one in the folder above does, and what that one's comment says holds here
// too: change both together. Package limit builds it, with -O2.
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <err.h>
#include <errno.h>
#include <getopt.h>
#include <netinet/tcp.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/epoll.h>
#include <sys/resource.h>
#include <time.h>
#include <unistd.h>

#include "websocket.h"

enum { connections_max = 1 << 20, events_max = 256, read_max = 64 << 10, ping_max = 3600, ping_turn = 100 };

// queue is what the socket of a slow reader did not take.
struct queue {
	size_t begin, end;
	uint8_t bytes[]; // server.slow; the system gives only pages that are used
};

struct conn {
	uint32_t place; // in server.open, from 1; 0 before the upgrade
	uint32_t rest_size;
	uint8_t *rest; // an incomplete request or frame
	struct queue *queue;
};

// server is all state. Pages of the arrays that are not used cost nothing.
static struct {
	int epoll, listener;
	size_t slow;                        // bytes of a queue; 0: nobody may read slowly
	uint64_t ping;                      // seconds from ping to ping of a connection; 0: there are none
	uint64_t pinged, due;               // when pings were last sent, and time of connections since theirs: ms
	struct conn conns[connections_max]; // by descriptor
	int open[connections_max];          // upgraded sockets
	size_t open_size, turn_size, ping_next; // the last is a place in open
	uint8_t turn[events_max * (rest_max + read_max)]; // frames that everybody gets at the end of the turn
	uint8_t input[rest_max + read_max];
} server;

static void *allocate(size_t size) {
	void *memory = malloc(size);
	if (memory == NULL)
		err(1, "malloc");
	return memory;
}

static void watch(int operation, int fd, uint32_t events) {
	struct epoll_event event = {.events = events, .data.fd = fd};
	if (epoll_ctl(server.epoll, operation, fd, &event) < 0)
		err(1, "epoll_ctl");
}

// drop is NULL, or false, for those who return what is left of a connection.
static void *drop(int fd) {
	struct conn *c = &server.conns[fd];
	if (c->place > 0) {
		int last = server.open[--server.open_size];
		server.open[c->place - 1] = last;
		server.conns[last].place = c->place;
	}
	free(c->rest);
	free(c->queue);
	*c = (struct conn){0};
	close(fd);
	return NULL;
}

// later keeps what the socket did not take. It is false when that is too much:
// the connection has been dropped then, with all that was not read.
static bool later(int fd, const uint8_t *bytes, size_t size) {
	struct conn *c = &server.conns[fd];
	if (size + (c->queue == NULL ? 0 : c->queue->end - c->queue->begin) > server.slow) {
		setsockopt(fd, SOL_SOCKET, SO_LINGER, &(struct linger){.l_onoff = 1}, sizeof(struct linger));
		return drop(fd);
	}
	if (c->queue == NULL) {
		c->queue = allocate(sizeof *c->queue + server.slow);
		c->queue->begin = c->queue->end = 0;
		watch(EPOLL_CTL_MOD, fd, EPOLLIN | EPOLLOUT);
	}
	struct queue *q = c->queue;
	if (q->end + size > server.slow) {
		memmove(q->bytes, q->bytes + q->begin, q->end - q->begin);
		q->end -= q->begin;
		q->begin = 0;
	}
	memcpy(q->bytes + q->end, bytes, size);
	q->end += size;
	return true;
}

// deliver has the system call that is measured. It is false when the connection
// has been dropped; one that its client has closed is dropped when that is read.
static bool deliver(int fd, const uint8_t *bytes, size_t size) {
	size_t took = 0;
	if (server.slow == 0 || server.conns[fd].queue == NULL) {
		ssize_t n = send(fd, bytes, size, MSG_DONTWAIT | MSG_NOSIGNAL);
		if (n == (ssize_t)size || (n < 0 && (errno == EPIPE || errno == ECONNRESET)))
			return true;
		if (n < 0 && errno != EAGAIN)
			err(1, "send");
		took = n < 0 ? 0 : (size_t)n;
		if (server.slow == 0)
			errx(1, "send: took %zu of %zu bytes: nothing can be measured with clients that do not read", took, size);
	}
	return later(fd, bytes + took, size - took);
}

// writable sends what was kept, or forgets it when the client has gone.
static void writable(int fd) {
	struct queue *q = server.conns[fd].queue;
	if (q == NULL)
		return;
	ssize_t n = send(fd, q->bytes + q->begin, q->end - q->begin, MSG_DONTWAIT | MSG_NOSIGNAL);
	if (n < 0 && errno == EAGAIN)
		return;
	q->begin = n < 0 ? q->end : q->begin + (size_t)n;
	if (q->begin < q->end)
		return;
	free(q);
	server.conns[fd].queue = NULL;
	watch(EPOLL_CTL_MOD, fd, EPOLLIN);
}

// reply sends a small frame.
static bool reply(int fd, int op, const void *payload, size_t size) {
	uint8_t frame[4 + control_max];
	return deliver(fd, frame, (size_t)(put(frame, op, payload, size) - frame));
}

// flush sends the turn's frames to everybody.
static void flush(void) {
	for (size_t i = 0; server.turn_size > 0 && i < server.open_size;)
		if (deliver(server.open[i], server.turn, server.turn_size))
			i++; // otherwise the last one is here now
	server.turn_size = 0;
}

// pings sends those that are due, some of them every ping_turn ms. It returns how
// long epoll_wait may wait then, -1 for as long as it likes.
static int pings(void) {
	if (server.ping == 0)
		return -1;
	struct timespec at;
	clock_gettime(CLOCK_MONOTONIC, &at);
	uint64_t now = (uint64_t)at.tv_sec * 1000 + (uint64_t)at.tv_nsec / 1000000, since = now - server.pinged;
	if (since < ping_turn)
		return (int)(ping_turn - since);
	server.pinged = now;
	server.due += since * server.open_size;
	for (uint64_t n = server.due / (1000 * server.ping); n > 0 && server.open_size > 0; n--) {
		if (server.ping_next >= server.open_size)
			server.ping_next = 0;
		if (reply(server.open[server.ping_next], op_ping, "", 0))
			server.ping_next++; // otherwise the last one is here now
	}
	server.due %= 1000 * server.ping;
	return ping_turn;
}

// upgrade answers a request when all of it is there. It returns where the next
// frame begins, at before that, and NULL when the connection has been dropped.
static uint8_t *upgrade(int fd, uint8_t *at, const uint8_t *end) {
	static const char refusal[] =
		"HTTP/1.1 400 Bad Request\r\nConnection: close\r\n\r\nwant the header Sec-WebSocket-Key with 24 characters\n";
	static const char upgraded[] = "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Accept: ";
	static const char established[] =
		"{\"event\":\"pusher:connection_established\",\"data\":\"{\\\"socket_id\\\":\\\"1.1\\\",\\\"activity_timeout\\\":120}\"}";
	uint8_t *blank = memmem(at, (size_t)(end - at), "\r\n\r\n", 4);
	if (blank == NULL)
		return at;
	const uint8_t *key = find_key(at, blank);
	if (key == NULL)
		return deliver(fd, (const uint8_t *)refusal, sizeof refusal - 1) ? drop(fd) : NULL;
	uint8_t answer[512], *to = mempcpy(answer, upgraded, sizeof upgraded - 1);
	accept_key((char *)to, key);
	to = put(mempcpy(to + accept_size, "\r\n\r\n", 4), op_text, established, sizeof established - 1);
	server.open[server.open_size++] = fd;
	server.conns[fd].place = (uint32_t)server.open_size;
	return deliver(fd, answer, (size_t)(to - answer)) ? blank + 4 : NULL;
}

// message takes a publication for the end of the turn, and answers anything
// else. It is false when the connection has been dropped.
static bool message(int fd, int op, const uint8_t *payload, size_t size) {
	static const char succeeded[] = "{\"event\":\"pusher_internal:subscription_succeeded\",\"channel\":\"any\",\"data\":\"{}\"}";
	if (op == op_text && size > 0 && payload[0] == 'P') {
		server.turn_size = (size_t)(put(server.turn + server.turn_size, op_text, payload + 1, size - 1) - server.turn);
		return true;
	}
	if (op == op_text)
		return reply(fd, op_text, succeeded, sizeof succeeded - 1);
	if (op == op_ping)
		return reply(fd, op_pong, payload, size);
	if (op == op_pong)
		return true;
	if (op == op_close && !reply(fd, op_close, payload, size))
		return false;
	return drop(fd);
}

// frames takes complete frames and returns what comes after them, NULL when the
// connection has been dropped.
static uint8_t *frames(int fd, uint8_t *at, const uint8_t *end) {
	struct frame f;
	int taken;
	while ((taken = take(&f, at, end)) > 0) {
		if (!message(fd, f.op, f.payload, f.size))
			return NULL;
		at = f.payload + f.size;
	}
	return taken < 0 ? drop(fd) : at;
}

static void readable(int fd) {
	struct conn *c = &server.conns[fd];
	uint8_t *at = server.input, *end = at + c->rest_size;
	ssize_t n = recv(fd, end, read_max, MSG_DONTWAIT);
	if (n < 0 && (errno == EAGAIN || errno == EINTR))
		return;
	if (n <= 0) {
		drop(fd);
		return;
	}
	if (c->rest_size > 0)
		memcpy(at, c->rest, c->rest_size);
	free(c->rest);
	c->rest = NULL;
	c->rest_size = 0;
	end += n;
	if (c->place == 0)
		at = upgrade(fd, at, end);
	if (at != NULL && c->place > 0)
		at = frames(fd, at, end);
	if (at == NULL || at == end)
		return;
	if (end - at > rest_max) {
		drop(fd);
		return;
	}
	c->rest_size = (uint32_t)(end - at);
	c->rest = memcpy(allocate(c->rest_size), at, c->rest_size);
}

static void accept_all(void) {
	for (;;) {
		int fd = accept4(server.listener, NULL, NULL, SOCK_NONBLOCK | SOCK_CLOEXEC);
		if (fd < 0 && errno == EAGAIN)
			return;
		if (fd < 0 && errno == ECONNABORTED)
			continue;
		if (fd < 0)
			err(1, "accept4");
		if (setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &(int){1}, sizeof(int)) < 0)
			err(1, "setsockopt");
		watch(EPOLL_CTL_ADD, fd, EPOLLIN);
	}
}

// start listens and prints where.
static void start(const char *address) {
	struct sockaddr_in at = {.sin_family = AF_INET};
	socklen_t size = sizeof at;
	char ip[INET_ADDRSTRLEN], rest;
	uint16_t port;
	if (sscanf(address, "%15[0-9.]:%hu%c", ip, &port, &rest) != 2 || inet_pton(AF_INET, ip, &at.sin_addr) != 1 || ip[3] != '.' ||
	    strncmp(ip, "127", 3) != 0)
		errx(2, "-listen %s: want an IPv4 loopback address such as 127.0.0.1:0", address);
	at.sin_port = htons(port);
	struct rlimit files;
	if (getrlimit(RLIMIT_NOFILE, &files) < 0)
		err(1, "getrlimit");
	files.rlim_cur = files.rlim_max < connections_max ? files.rlim_max : connections_max; // as Go's runtime does
	if (setrlimit(RLIMIT_NOFILE, &files) < 0)
		err(1, "setrlimit");
	server.epoll = epoll_create1(EPOLL_CLOEXEC);
	server.listener = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
	if (bind(server.listener, (struct sockaddr *)&at, size) < 0 || listen(server.listener, 4096) < 0 ||
	    getsockname(server.listener, (struct sockaddr *)&at, &size) < 0)
		err(1, "listen");
	watch(EPOLL_CTL_ADD, server.listener, EPOLLIN);
	printf("%s:%d\n", ip, ntohs(at.sin_port));
	fflush(stdout);
}

int main(int argc, char **argv) {
	static const struct option options[] = {
		{"listen", required_argument, NULL, 'l'}, {"ping", required_argument, NULL, 'p'}, {"slow", required_argument, NULL, 's'}, {0}};
	const char *address = "127.0.0.1:0";
	char *end = "";
	bool wrong = false;
	for (int option; (option = getopt_long_only(argc, argv, "", options, NULL)) != -1;) {
		if (option == 'l')
			address = optarg;
		else if (option == 's')
			server.slow = strtoul(optarg, &end, 10);
		else if (option == 'p')
			server.ping = strtoul(optarg, &end, 10);
		wrong = wrong || option == '?' || *end != '\0' || optarg[0] == '-' || server.ping > ping_max;
	}
	if (wrong || optind < argc)
		errx(2, "want [-listen 127.0.0.1:0] [-ping SECONDS, up to %d] [-slow LIMIT_BYTES]", ping_max);
	start(address);
	for (struct epoll_event events[events_max];;) {
		int n = epoll_wait(server.epoll, events, events_max, pings());
		if (n < 0 && errno != EINTR)
			err(1, "epoll_wait");
		for (int i = 0; i < n; i++) {
			int fd = events[i].data.fd;
			if (events[i].events & EPOLLOUT)
				writable(fd);
			if (fd == server.listener)
				accept_all();
			else if (events[i].events & ~(uint32_t)EPOLLOUT)
				readable(fd);
		}
		flush();
	}
}
