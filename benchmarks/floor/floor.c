/*
 * floor forwards packets between a TUN device and a UDP socket, and does nothing else:
 *
 *	floor DEVICE LOCAL:PORT REMOTE:PORT 1|2
 *
 * Each packet costs a system call to read it and one to write it. A datagram is the IP
 * packet itself, without any header of an encapsulation. There is no lookup, no check, no
 * batch, no segmentation or checksum offload, and no runtime besides the C library's.
 *
 * With 1 thread, poll(2) waits for both descriptors. With 2, each thread blocks on one
 * descriptor and writes to the other.
 */
#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <linux/if_tun.h>
#include <net/if.h>
#include <poll.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/socket.h>
#include <unistd.h>

enum {
	buffer_size = 64 * 1024,	   /* of one packet */
	socket_buffer_size = 8 * 1024 * 1024, /* weftd's */
	turn = 64, /* packets of one direction before the other is looked at */
};

static int device, udp;

static void fail(const char *what)
{
	perror(what);
	exit(1);
}

static void open_device(const char *name, int flags)
{
	struct ifreq request = {.ifr_flags = IFF_TUN | IFF_NO_PI};

	strncpy(request.ifr_name, name, IFNAMSIZ - 1);
	device = open("/dev/net/tun", O_RDWR | flags);
	if (device < 0 || ioctl(device, TUNSETIFF, &request) < 0)
		fail("make the TUN device");
}

/* parse reads ADDRESS:PORT, both of IPv4. */
static struct sockaddr_in parse(const char *text)
{
	struct sockaddr_in address = {.sin_family = AF_INET};
	char host[INET_ADDRSTRLEN] = "";
	unsigned short port;

	if (sscanf(text, "%15[0-9.]:%hu", host, &port) != 2 || inet_pton(AF_INET, host, &address.sin_addr) != 1) {
		fprintf(stderr, "%s is not ADDRESS:PORT\n", text);
		exit(2);
	}
	address.sin_port = htons(port);
	return address;
}

static void open_udp(const char *local, const char *remote, int flags)
{
	struct sockaddr_in from = parse(local), to = parse(remote);
	int size = socket_buffer_size;

	udp = socket(AF_INET, SOCK_DGRAM | flags, 0);
	if (udp < 0 || bind(udp, (struct sockaddr *)&from, sizeof(from)) < 0 ||
	    connect(udp, (struct sockaddr *)&to, sizeof(to)) < 0)
		fail("open the UDP socket");
	if (setsockopt(udp, SOL_SOCKET, SO_RCVBUFFORCE, &size, sizeof(size)) < 0 ||
	    setsockopt(udp, SOL_SOCKET, SO_SNDBUFFORCE, &size, sizeof(size)) < 0)
		fail("set the buffers of the UDP socket");
}

/*
 * forward moves packets until none is there, or at most a turn's. A packet that cannot be
 * written is lost, as on any wire.
 */
static void forward(int from, int to, int packets)
{
	static __thread char packet[buffer_size];

	while (packets-- > 0) {
		ssize_t size = read(from, packet, sizeof(packet));

		if (size >= 0) {
			(void)!write(to, packet, size);
		} else if (errno == EAGAIN) {
			return;
		} else if (errno != ECONNREFUSED && errno != EINTR) { /* the other end may not run yet */
			fail("read a packet");
		}
	}
}

static void *outbound(void *unused)
{
	for (;;)
		forward(device, udp, turn);
	return unused;
}

static void both(void)
{
	struct pollfd ready[2] = {{.fd = device, .events = POLLIN}, {.fd = udp, .events = POLLIN}};

	for (;;) {
		if (poll(ready, 2, -1) < 0 && errno != EINTR)
			fail("poll");
		if (ready[0].revents)
			forward(device, udp, turn);
		if (ready[1].revents)
			forward(udp, device, turn);
	}
}

int main(int argc, char **argv)
{
	pthread_t thread;
	int two = argc == 5 && strcmp(argv[4], "2") == 0;

	if (argc != 5 || (!two && strcmp(argv[4], "1") != 0)) {
		fprintf(stderr, "usage: floor DEVICE LOCAL:PORT REMOTE:PORT 1|2\n");
		return 2;
	}
	open_device(argv[1], two ? 0 : O_NONBLOCK);
	open_udp(argv[2], argv[3], two ? 0 : SOCK_NONBLOCK);
	puts("ready");
	fflush(stdout);
	if (!two)
		both();
	if (pthread_create(&thread, NULL, outbound, NULL) != 0)
		fail("start a thread");
	for (;;)
		forward(udp, device, turn);
}
