/* The physical limit of an SFTP transfer: two processes that do nothing but its unavoidable work.
 *
 *     sender     pread -> seal in place -> send in bursts of 512 KiB
 *     receiver   recv into 1 MiB -> open in place -> pwrite
 *
 * The packets are those of SSH: packet_length | padding_length | type, channel, data length | data | padding | tag.
 * Nothing is requested, and nothing answered but one byte at the end. `get`: the client receives; `put`: it sends.
 *
 *     cc -O3 limit.c -o limit -lcrypto
 *     limit get|put -s SOURCE -t TARGET [-c CIPHER] [-p PACKET_DATA_BYTES] [-n ROUNDS] [-j]
 *
 * The source is a file of any size, the target is overwritten. Prints MB/s (10^6 bytes) and the CPU seconds (user and
 * system) a GiB of each process; -j prints one JSON object a round.
 */
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <openssl/core_names.h>
#include <openssl/crypto.h>
#include <openssl/evp.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

enum {
    BURST = 512 * 1024,
    RECEIVE_ROOM = 1024 * 1024,
    MAX_PACKET_DATA = 256 * 1024 - 64, /* a packet_length is at most 256 KiB */
    HEAD = 4 + 1 + 9,                  /* packet_length, padding_length, CHANNEL_DATA's type, channel and data length */
    MSG_CHANNEL_DATA = 94,
    MAX_TAG = 32
};

static void die(const char *what)
{
    fprintf(stderr, "limit: %s%s%s\n", what, errno ? ": " : "", errno ? strerror(errno) : "");
    exit(1);
}

static void need(int right, const char *what)
{
    if (!right)
        die(what);
}

static uint32_t load_u32(const unsigned char *data)
{
    return (uint32_t)data[0] << 24 | (uint32_t)data[1] << 16 | (uint32_t)data[2] << 8 | data[3];
}

static void store_u32(unsigned char *data, uint32_t value)
{
    data[0] = value >> 24;
    data[1] = value >> 16;
    data[2] = value >> 8;
    data[3] = value;
}

/* --- ciphers --- */

struct cipher;

struct suite {
    const char *name;
    const char *evp;
    int block;
    int tag;
    void (*seal)(struct cipher *, uint32_t seq, unsigned char *packet, uint32_t length);
    uint32_t (*open_length)(struct cipher *, uint32_t seq, const unsigned char *packet);
    void (*open)(struct cipher *, uint32_t seq, unsigned char *packet, uint32_t length);
};

struct cipher {
    const struct suite *suite;
    EVP_CIPHER_CTX *body;
    EVP_CIPHER_CTX *head;
    EVP_MAC_CTX *mac;
    unsigned char nonce[12];
};

static void update(EVP_CIPHER_CTX *context, unsigned char *out, const unsigned char *data, int size)
{
    int done;

    need(EVP_CipherUpdate(context, out, &done, data, size) == 1, "EVP_CipherUpdate failed");
}

static void start(EVP_CIPHER_CTX *context, const unsigned char *iv)
{
    need(EVP_CipherInit_ex2(context, NULL, NULL, iv, -1, NULL) == 1, "EVP_CipherInit_ex2 failed");
}

static uint32_t clear_length(struct cipher *cipher, uint32_t seq, const unsigned char *packet)
{
    (void)cipher;
    (void)seq;

    return load_u32(packet);
}

static void gcm_begin(struct cipher *cipher, const unsigned char *packet)
{
    start(cipher->body, cipher->nonce);

    for (int place = 11; place >= 4 && ++cipher->nonce[place] == 0; place--)
        ;

    update(cipher->body, NULL, packet, 4);
}

static void gcm_seal(struct cipher *cipher, uint32_t seq, unsigned char *packet, uint32_t length)
{
    int done;

    (void)seq;
    gcm_begin(cipher, packet);
    update(cipher->body, packet + 4, packet + 4, length);
    need(EVP_CipherFinal_ex(cipher->body, packet + 4 + length, &done) == 1, "EVP_CipherFinal_ex failed");
    need(EVP_CIPHER_CTX_ctrl(cipher->body, EVP_CTRL_AEAD_GET_TAG, 16, packet + 4 + length) == 1, "no tag");
}

static void gcm_open(struct cipher *cipher, uint32_t seq, unsigned char *packet, uint32_t length)
{
    unsigned char rest[16];
    int done;

    (void)seq;
    gcm_begin(cipher, packet);
    need(EVP_CIPHER_CTX_ctrl(cipher->body, EVP_CTRL_AEAD_SET_TAG, 16, packet + 4 + length) == 1, "no tag");
    update(cipher->body, packet + 4, packet + 4, length);
    need(EVP_CipherFinal_ex(cipher->body, rest, &done) == 1, "wrong tag");
}

static void compute(struct cipher *cipher, const unsigned char *key, size_t key_size, const unsigned char *seq_bytes,
                    const unsigned char *packet, size_t size, unsigned char *tag)
{
    size_t done;

    need(EVP_MAC_init(cipher->mac, key, key_size, NULL) == 1
             && (seq_bytes == NULL || EVP_MAC_update(cipher->mac, seq_bytes, 4) == 1)
             && EVP_MAC_update(cipher->mac, packet, size) == 1
             && EVP_MAC_final(cipher->mac, tag, &done, cipher->suite->tag) == 1,
         "MAC failed");
}

static void chacha_lay_iv(unsigned char *iv, uint32_t seq)
{
    memset(iv, 0, 16);
    store_u32(iv + 12, seq);
}

static void chacha_begin(struct cipher *cipher, uint32_t seq, unsigned char *key)
{
    unsigned char iv[16];

    chacha_lay_iv(iv, seq);
    memset(key, 0, 64);
    start(cipher->body, iv);
    update(cipher->body, key, key, 64);
}

static void chacha_seal(struct cipher *cipher, uint32_t seq, unsigned char *packet, uint32_t length)
{
    unsigned char iv[16], key[64];

    chacha_lay_iv(iv, seq);
    start(cipher->head, iv);
    update(cipher->head, packet, packet, 4);
    chacha_begin(cipher, seq, key);
    update(cipher->body, packet + 4, packet + 4, length);
    compute(cipher, key, 32, NULL, packet, 4 + length, packet + 4 + length);
}

static uint32_t chacha_open_length(struct cipher *cipher, uint32_t seq, const unsigned char *packet)
{
    unsigned char iv[16], opened[4];

    chacha_lay_iv(iv, seq);
    start(cipher->head, iv);
    update(cipher->head, opened, packet, 4);

    return load_u32(opened);
}

static void chacha_open(struct cipher *cipher, uint32_t seq, unsigned char *packet, uint32_t length)
{
    unsigned char key[64], tag[16];

    chacha_begin(cipher, seq, key);
    compute(cipher, key, 32, NULL, packet, 4 + length, tag);
    need(CRYPTO_memcmp(tag, packet + 4 + length, 16) == 0, "wrong tag");
    update(cipher->body, packet + 4, packet + 4, length);
}

static void etm_seal(struct cipher *cipher, uint32_t seq, unsigned char *packet, uint32_t length)
{
    unsigned char seq_bytes[4];

    store_u32(seq_bytes, seq);
    update(cipher->body, packet + 4, packet + 4, length);
    compute(cipher, NULL, 0, seq_bytes, packet, 4 + length, packet + 4 + length);
}

static void etm_open(struct cipher *cipher, uint32_t seq, unsigned char *packet, uint32_t length)
{
    unsigned char seq_bytes[4], tag[MAX_TAG];

    store_u32(seq_bytes, seq);
    compute(cipher, NULL, 0, seq_bytes, packet, 4 + length, tag);
    need(CRYPTO_memcmp(tag, packet + 4 + length, cipher->suite->tag) == 0, "wrong tag");
    update(cipher->body, packet + 4, packet + 4, length);
}

static const struct suite SUITES[] = {
    {"aes128-gcm@openssh.com", "AES-128-GCM", 16, 16, gcm_seal, clear_length, gcm_open},
    {"aes256-gcm@openssh.com", "AES-256-GCM", 16, 16, gcm_seal, clear_length, gcm_open},
    {"chacha20-poly1305@openssh.com", "ChaCha20", 8, 16, chacha_seal, chacha_open_length, chacha_open},
    {"aes128-ctr+hmac-sha2-256-etm@openssh.com", "AES-128-CTR", 16, 32, etm_seal, clear_length, etm_open},
    {"aes256-ctr+hmac-sha2-256-etm@openssh.com", "AES-256-CTR", 16, 32, etm_seal, clear_length, etm_open},
};

static EVP_CIPHER_CTX *new_context(const char *name, const unsigned char *key, int sealing)
{
    static const unsigned char iv[16];
    EVP_CIPHER *fetched = EVP_CIPHER_fetch(NULL, name, NULL);
    EVP_CIPHER_CTX *context = EVP_CIPHER_CTX_new();

    need(fetched != NULL && context != NULL && EVP_CipherInit_ex2(context, fetched, key, iv, sealing, NULL) == 1, name);

    return context;
}

static struct cipher new_cipher(const struct suite *suite, int sealing)
{
    struct cipher cipher = {.suite = suite};
    unsigned char key[64];

    for (int i = 0; i < 64; i++)
        key[i] = i * 7;

    cipher.body = new_context(suite->evp, key, sealing);

    if (suite->seal == chacha_seal) {
        cipher.head = new_context(suite->evp, key + 32, sealing);
        cipher.mac = EVP_MAC_CTX_new(EVP_MAC_fetch(NULL, "POLY1305", NULL));
        need(cipher.mac != NULL, "POLY1305");
    } else if (suite->seal == etm_seal) {
        OSSL_PARAM params[2];

        params[0] = OSSL_PARAM_construct_utf8_string(OSSL_MAC_PARAM_DIGEST, "SHA256", 0);
        params[1] = OSSL_PARAM_construct_end();

        cipher.mac = EVP_MAC_CTX_new(EVP_MAC_fetch(NULL, "HMAC", NULL));
        need(cipher.mac != NULL && EVP_MAC_init(cipher.mac, key + 32, 32, params) == 1, "HMAC");
    }

    return cipher;
}

static void free_cipher(struct cipher *cipher)
{
    EVP_CIPHER_CTX_free(cipher->body);
    EVP_CIPHER_CTX_free(cipher->head);
    EVP_MAC_CTX_free(cipher->mac);
}

/* --- the two ends --- */

static void send_all(int sock, const unsigned char *data, size_t size)
{
    while (size) {
        ssize_t done = send(sock, data, size, MSG_NOSIGNAL);

        if (done < 0 && errno == EINTR)
            continue;

        need(done > 0, "send");
        data += done;
        size -= done;
    }
}

static void send_file(int sock, const struct suite *suite, const char *path, off_t size, uint32_t packet_data)
{
    struct cipher cipher = new_cipher(suite, 1);
    size_t packet_room = HEAD + packet_data + 4 + suite->block + suite->tag;
    unsigned char *chunk = malloc(BURST + packet_room);
    int file = open(path, O_RDONLY);
    size_t used = 0;
    uint32_t seq = 0;
    char done;

    need(chunk != NULL && file >= 0, path);

    for (off_t offset = 0; offset < size;) {
        unsigned char *packet = chunk + used;
        ssize_t got = pread(file, packet + HEAD, size - offset < packet_data ? size - offset : packet_data, offset);

        need(got > 0, path);

        int padding = 4 + (suite->block - (HEAD - 4 + got + 4) % suite->block) % suite->block;
        uint32_t length = HEAD - 4 + got + padding;

        store_u32(packet, length);
        packet[4] = padding;
        packet[5] = MSG_CHANNEL_DATA;
        store_u32(packet + 6, 0);
        store_u32(packet + 10, got);
        memset(packet + HEAD + got, 0, padding);
        suite->seal(&cipher, seq++, packet, length);
        used += 4 + length + suite->tag;
        offset += got;

        if (used >= BURST || offset == size) {
            send_all(sock, chunk, used);
            used = 0;
        }
    }

    need(recv(sock, &done, 1, 0) == 1, "the receiver's last byte");
    close(file);
    free(chunk);
    free_cipher(&cipher);
}

static void receive_file(int sock, const struct suite *suite, const char *path, off_t size)
{
    struct cipher cipher = new_cipher(suite, 0);
    unsigned char *buffer = malloc(RECEIVE_ROOM);
    /* Emptied first, as every SFTP client and server does with a file that it overwrites: its pages are made anew. */
    int file = open(path, O_WRONLY | O_CREAT | O_TRUNC, 0600);
    size_t begin = 0, end = 0;
    uint32_t seq = 0;
    off_t offset = 0;

    need(buffer != NULL && file >= 0, path);

    while (offset < size) {
        /* The rest of a packet moves to the front only when no whole packet may fit behind it. */
        if (begin == end)
            begin = end = 0;
        else if (RECEIVE_ROOM - begin < MAX_PACKET_DATA + 256) {
            memmove(buffer, buffer + begin, end - begin);
            end -= begin;
            begin = 0;
        }

        ssize_t got = recv(sock, buffer + end, RECEIVE_ROOM - end, 0);

        if (got < 0 && errno == EINTR)
            continue;

        need(got > 0, "recv");
        end += got;

        while (end - begin >= 4) {
            unsigned char *packet = buffer + begin;
            uint32_t length = suite->open_length(&cipher, seq, packet);

            need(length >= HEAD - 4 && length <= 256 * 1024, "bad packet_length");

            if (end - begin < 4 + length + suite->tag)
                break;

            suite->open(&cipher, seq++, packet, length);

            uint32_t data = load_u32(packet + 10);

            need(data <= length - (HEAD - 4), "bad data length");
            need(pwrite(file, packet + HEAD, data, offset) == (ssize_t)data, path);
            offset += data;
            begin += 4 + length + suite->tag;
        }
    }

    send_all(sock, (const unsigned char *)"", 1);
    close(file);
    free(buffer);
    free_cipher(&cipher);
}

/* --- one round --- */

static double cpu_seconds(const struct rusage *usage)
{
    return usage->ru_utime.tv_sec + usage->ru_stime.tv_sec + (usage->ru_utime.tv_usec + usage->ru_stime.tv_usec) / 1e6;
}

static double own_cpu_seconds(void)
{
    struct rusage usage;

    getrusage(RUSAGE_SELF, &usage);

    return cpu_seconds(&usage);
}

static double wall_seconds(void)
{
    struct timespec now;

    clock_gettime(CLOCK_MONOTONIC, &now);

    return now.tv_sec + now.tv_nsec / 1e9;
}

int main(int argc, char **argv)
{
    const struct suite *suite = &SUITES[0];
    const char *source = NULL, *target = NULL;
    uint32_t packet_data = 32768;
    int rounds = 1, json = 0, option;

    if (argc < 2 || (strcmp(argv[1], "get") && strcmp(argv[1], "put")))
        die("the first argument must be get or put");

    int is_get = !strcmp(argv[1], "get");

    optind = 2;

    while ((option = getopt(argc, argv, "s:t:c:p:n:j")) != -1) {
        switch (option) {
        case 's':
            source = optarg;
            break;
        case 't':
            target = optarg;
            break;
        case 'c':
            suite = NULL;

            for (size_t i = 0; i < sizeof SUITES / sizeof *SUITES; i++)
                if (!strcmp(optarg, SUITES[i].name))
                    suite = &SUITES[i];

            need(suite != NULL, "-c: unknown cipher");
            break;
        case 'p':
            packet_data = atoi(optarg);
            need(packet_data >= 1 && packet_data <= MAX_PACKET_DATA, "-p: expected 1 to 262080 bytes");
            break;
        case 'n':
            rounds = atoi(optarg);
            break;
        case 'j':
            json = 1;
            break;
        default:
            return 2;
        }
    }

    struct stat info;

    need(source != NULL && target != NULL, "-s SOURCE and -t TARGET are needed");
    need(stat(source, &info) == 0 && info.st_size > 0, source);

    for (int round = 0; round < rounds; round++) {
        struct sockaddr_in address = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
        socklen_t address_size = sizeof address;
        int listener = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0), yes = 1;

        need(listener >= 0 && bind(listener, (struct sockaddr *)&address, sizeof address) == 0
                 && listen(listener, 1) == 0
                 && getsockname(listener, (struct sockaddr *)&address, &address_size) == 0,
             "listen");

        pid_t server = fork();

        need(server >= 0, "fork");

        if (server == 0) {
            int sock = accept(listener, NULL, NULL);

            need(sock >= 0, "accept");
            setsockopt(sock, IPPROTO_TCP, TCP_NODELAY, &yes, sizeof yes);

            if (is_get)
                send_file(sock, suite, source, info.st_size, packet_data);
            else
                receive_file(sock, suite, target, info.st_size);

            _exit(0);
        }

        int sock = socket(AF_INET, SOCK_STREAM, 0);

        need(sock >= 0 && connect(sock, (struct sockaddr *)&address, sizeof address) == 0, "connect");
        setsockopt(sock, IPPROTO_TCP, TCP_NODELAY, &yes, sizeof yes);

        double cpu = own_cpu_seconds(), wall = wall_seconds();

        if (is_get)
            receive_file(sock, suite, target, info.st_size);
        else
            send_file(sock, suite, source, info.st_size, packet_data);

        wall = wall_seconds() - wall;
        cpu = own_cpu_seconds() - cpu;
        close(sock);
        close(listener);

        struct rusage usage;
        int status;

        need(wait4(server, &status, 0, &usage) == server && status == 0, "the server process failed");

        double gib = info.st_size / 1073741824.0;

        printf(json ? "{\"direction\": \"%s\", \"cipher\": \"%s\", \"packet_data\": %u, \"mb_per_second\": %.1f, "
                      "\"client_cpu_per_gib\": %.4f, \"server_cpu_per_gib\": %.4f}\n"
                    : "%s %s, packets of %u: %.0f MB/s, CPU s/GiB client %.3f, server %.3f\n",
               argv[1], suite->name, packet_data, info.st_size / 1e6 / wall, cpu / gib, cpu_seconds(&usage) / gib);
        fflush(stdout);
    }

    return 0;
}
