// What of WebSocket a limit server has to know. It knows nothing of sockets.
#include <stdint.h>
#include <string.h>

enum { op_text = 1, op_close = 8, op_ping = 9, op_pong = 10 };

enum {
	rest_max = 8 + 65535, // the largest frame that is understood, and request
	control_max = 125,
	key_size = 24, // base64 of 16 bytes
	accept_size = 28,
};

static uint32_t rotate(uint32_t x, int by) { return x << by | x >> (32 - by); }

static void sha1_block(uint32_t h[5], const uint8_t *block) {
	uint32_t w[80], a = h[0], b = h[1], c = h[2], d = h[3], e = h[4];
	for (int i = 0; i < 16; i++)
		w[i] = (uint32_t)block[4 * i] << 24 | (uint32_t)block[4 * i + 1] << 16 | (uint32_t)block[4 * i + 2] << 8 | block[4 * i + 3];
	for (int i = 16; i < 80; i++)
		w[i] = rotate(w[i - 3] ^ w[i - 8] ^ w[i - 14] ^ w[i - 16], 1);
	for (int i = 0; i < 80; i++) {
		uint32_t mixed = i < 20 ? ((b & c) | (~b & d)) + 0x5a827999
			: i < 40 ? (b ^ c ^ d) + 0x6ed9eba1
			: i < 60 ? ((b & c) | (b & d) | (c & d)) + 0x8f1bbcdc
			: (b ^ c ^ d) + 0xca62c1d6;
		uint32_t next = rotate(a, 5) + mixed + e + w[i];
		e = d, d = c, c = rotate(b, 30), b = a, a = next;
	}
	h[0] += a, h[1] += b, h[2] += c, h[3] += d, h[4] += e;
}

// accept_key writes the base64 of the SHA-1 of key and the GUID of RFC 6455: 60
// bytes, which with what SHA-1 appends are two blocks.
static void accept_key(char out[accept_size], const uint8_t *key) {
	static const char guid[] = "258EAFA5-E914-47DA-95CA-C5AB0DC85B11";
	static const char digits[] = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
	uint32_t h[6] = {0x67452301, 0xefcdab89, 0x98badcfe, 0x10325476, 0xc3d2e1f0, 0}; // base64 reads into the sixth
	uint8_t text[128] = {[60] = 0x80, [126] = 60 * 8 >> 8, [127] = 60 * 8 & 0xff};
	memcpy(mempcpy(text, key, key_size), guid, sizeof guid - 1);
	sha1_block(h, text);
	sha1_block(h, text + 64);
	for (int i = 0; i < accept_size - 1; i++) {
		int bit = 6 * i;
		uint64_t around = (uint64_t)h[bit / 32] << 32 | h[bit / 32 + 1];
		out[i] = digits[around >> (58 - bit % 32) & 63];
	}
	out[accept_size - 1] = '=';
}

// find_key is the client's key in a request up to its blank line, NULL if there
// is none. Clients all write the header's name like this.
static const uint8_t *find_key(const uint8_t *request, const uint8_t *blank) {
	static const char name[] = "\r\nSec-WebSocket-Key: ";
	const uint8_t *line = memmem(request, (size_t)(blank - request), name, sizeof name - 1);
	if (line == NULL)
		return NULL;
	const uint8_t *key = line + sizeof name - 1;
	return memmem(key, (size_t)(blank + 2 - key), "\r\n", 2) == key + key_size ? key : NULL;
}

// put writes a frame, up to 4 bytes more than its payload, and returns its end.
static uint8_t *put(uint8_t *to, int op, const void *payload, size_t size) {
	*to++ = (uint8_t)(0x80 | op);
	if (size >= 126) {
		*to++ = 126;
		*to++ = (uint8_t)(size >> 8);
	}
	*to++ = (uint8_t)size;
	return mempcpy(to, payload, size);
}

struct frame {
	int op;
	uint8_t *payload; // unmasked, where it came
	size_t size;
};

// take reads the frame at the begin of a client's bytes. It is 0 when it is not
// complete, and below 0 when it is not understood: fragments, extensions, and
// frames without a mask or of more than 64 KiB.
static int take(struct frame *f, uint8_t *at, const uint8_t *end) {
	if (end - at < 6)
		return 0;
	size_t op = at[0] ^ 0x80, size = at[1] ^ 0x80, head = size == 126 ? 4 : 2;
	if (op > op_pong || size > 126 || (op >= op_close && size > control_max))
		return -1;
	if (size == 126)
		size = (size_t)at[2] << 8 | at[3];
	if ((size_t)(end - at) < head + 4 + size)
		return 0;
	uint8_t *mask = at + head;
	*f = (struct frame){.op = (int)op, .payload = mask + 4, .size = size};
	for (size_t i = 0; i < size; i++)
		f->payload[i] ^= mask[i % 4];
	return 1;
}
