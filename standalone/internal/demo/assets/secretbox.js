// Opens NaCl secret boxes (XSalsa20-Poly1305), for encrypted channels on the demo page. Written for reading; an application uses a
// reviewed library.

const SIGMA = [0x61707865, 0x3320646e, 0x79622d32, 0x6b206574];
const COLUMNS = [[0, 4, 8, 12], [5, 9, 13, 1], [10, 14, 2, 6], [15, 3, 7, 11]];
const ROWS = [[0, 1, 2, 3], [5, 6, 7, 4], [10, 11, 8, 9], [15, 12, 13, 14]];

const words = (bytes) => {
  const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);
  return Array.from({ length: bytes.length / 4 }, (_, i) => view.getUint32(i * 4, true));
};

const bytesOf = (list) => {
  const view = new DataView(new ArrayBuffer(list.length * 4));
  list.forEach((word, i) => view.setUint32(i * 4, word, true));
  return new Uint8Array(view.buffer);
};

const rotate = (word, by) => (word << by) | (word >>> (32 - by));

function quarter(x, [a, b, c, d]) {
  x[b] ^= rotate((x[a] + x[d]) | 0, 7);
  x[c] ^= rotate((x[b] + x[a]) | 0, 9);
  x[d] ^= rotate((x[c] + x[b]) | 0, 13);
  x[a] ^= rotate((x[d] + x[c]) | 0, 18);
}

// mix returns the state before and after Salsa20's twenty rounds.
function mix(key, input) {
  const k = words(key);
  const before = Int32Array.of(
    SIGMA[0], ...k.slice(0, 4), SIGMA[1], ...input, SIGMA[2], ...k.slice(4), SIGMA[3],
  );
  const after = Int32Array.from(before);
  for (let round = 0; round < 10; round++) {
    COLUMNS.forEach((q) => quarter(after, q));
    ROWS.forEach((q) => quarter(after, q));
  }
  return { before, after };
}

function hsalsa20(key, nonce16) {
  const { after } = mix(key, words(nonce16));
  return bytesOf([0, 5, 10, 15, 6, 7, 8, 9].map((i) => after[i]));
}

function salsa20(key, nonce8, length) {
  const stream = new Uint8Array(Math.ceil(length / 64) * 64);
  for (let block = 0; block * 64 < length; block++) {
    const { before, after } = mix(key, [...words(nonce8), block, 0]);
    stream.set(bytesOf(Array.from(after, (word, i) => word + before[i])), block * 64);
  }
  return stream;
}

const number = (bytes) => bytes.reduceRight((n, byte) => (n << 8n) | BigInt(byte), 0n);

function poly1305(key, message) {
  const prime = (1n << 130n) - 5n;
  const r = number(key.subarray(0, 16)) & 0x0ffffffc0ffffffc0ffffffc0fffffffn;
  let sum = 0n;
  for (let at = 0; at < message.length; at += 16) {
    const block = message.subarray(at, at + 16);
    sum = ((sum + number(block) + (1n << BigInt(block.length * 8))) * r) % prime;
  }
  return (sum + number(key.subarray(16, 32))) & ((1n << 128n) - 1n);
}

// open returns the bytes in the box, or null when it was sealed with another key or changed on the way.
export function open(box, nonce, key) {
  if (box.length < 16 || nonce.length !== 24 || key.length !== 32) return null;
  const [tag, sealed] = [box.subarray(0, 16), box.subarray(16)];
  const stream = salsa20(hsalsa20(key, nonce.subarray(0, 16)), nonce.subarray(16), sealed.length + 32);
  if (poly1305(stream.subarray(0, 32), sealed) !== number(tag)) return null;
  return sealed.map((byte, i) => byte ^ stream[i + 32]);
}

export const fromBase64 = (text) => Uint8Array.from(atob(text), (char) => char.charCodeAt(0));
