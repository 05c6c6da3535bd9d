/* libmariadb, the C client, through the gateway; see ../clients.go. */
#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include <mysql.h>

#define WHO "c"

static const char *host, *ca, *file;
static unsigned port;
static jmp_buf out_of_check;
static int failed;
static const char *running;

static void fail(int line, const char *format, ...) {
  va_list args;
  printf("FAIL %s: line %d: ", running, line);
  va_start(args, format);
  vprintf(format, args);
  va_end(args);
  printf("\n");
  failed = 1;
  longjmp(out_of_check, 1);
}

#define WANT(condition, ...) do { if (!(condition)) fail(__LINE__, "not " #condition ": " __VA_ARGS__); } while (0)
#define EQUAL(got, want) do { long long g_ = (got), w_ = (want); if (g_ != w_) fail(__LINE__, #got " is %lld, want %lld", g_, w_); } while (0)
#define SAME(got, want) do { const char *g_ = (got), *w_ = (want); if (!g_ || strcmp(g_, w_)) fail(__LINE__, #got " is %s, want %s", g_ ? g_ : "(null)", w_); } while (0)
#define OK(c, call) do { if (call) fail(__LINE__, #call ": %u %s", mysql_errno(c), mysql_error(c)); } while (0)
#define SOK(s, call) do { if (call) fail(__LINE__, #call ": %u %s", mysql_stmt_errno(s), mysql_stmt_error(s)); } while (0)

struct how {
  const char *user, *password, *database, *plugin, *charset;
  int tls, reconnect, compress;
  unsigned long flags;
};

static MYSQL *try_connect(struct how h) {
  MYSQL *c = mysql_init(NULL);
  my_bool yes = 1, no = 0;
  unsigned timeout = 30, infile = 1;
  mysql_options(c, MYSQL_OPT_CONNECT_TIMEOUT, &timeout);
  mysql_options(c, MYSQL_OPT_LOCAL_INFILE, &infile);
  mysql_options(c, MYSQL_SET_CHARSET_NAME, h.charset ? h.charset : "utf8mb4");
  if (h.plugin) mysql_options(c, MYSQL_DEFAULT_AUTH, h.plugin);
  if (h.reconnect) mysql_options(c, MYSQL_OPT_RECONNECT, &yes);
  if (h.compress) mysql_options(c, MYSQL_OPT_COMPRESS, NULL);
  if (h.tls) {
    mysql_options(c, MYSQL_OPT_SSL_ENFORCE, &yes);
    mysql_ssl_set(c, NULL, NULL, ca, NULL, NULL);
    mysql_options(c, MYSQL_OPT_SSL_VERIFY_SERVER_CERT, &yes);
  } else {
    mysql_options(c, MYSQL_OPT_SSL_VERIFY_SERVER_CERT, &no);
  }
  mysql_options4(c, MYSQL_OPT_CONNECT_ATTR_ADD, "program_name", "menshen client test");
  mysql_real_connect(c, host, h.user ? h.user : "app", h.password ? h.password : "apple", h.database ? h.database : "shop", port, NULL, h.flags);
  return c;
}

static MYSQL *connected(struct how h) {
  MYSQL *c = try_connect(h);
  if (mysql_errno(c)) fail(__LINE__, "connect: %u %s", mysql_errno(c), mysql_error(c));
  return c;
}

/* one gives the first column of the only row of a query, in a buffer of its own; NULL for NULL. */
static char *one(MYSQL *c, const char *query) {
  static char buffers[8][256];
  static int next;
  char *buffer = buffers[next++ % 8];
  OK(c, mysql_query(c, query));
  MYSQL_RES *r = mysql_store_result(c);
  WANT(r, "%s", query);
  MYSQL_ROW row = mysql_fetch_row(r);
  WANT(row, "%s", query);
  char *value = row[0] ? strncpy(buffer, row[0], 255) : NULL;
  mysql_free_result(r);
  return value;
}

static void refused(MYSQL *c, int line, int result, unsigned code, const char *state) {
  if (!result) fail(line, "no error, want %u", code);
  if (mysql_errno(c) != code || strcmp(mysql_sqlstate(c), state)) fail(line, "%u (%s) %s, want %u (%s)", mysql_errno(c), mysql_sqlstate(c), mysql_error(c), code, state);
}
#define REFUSED(c, query, code, state) refused(c, __LINE__, mysql_query(c, query), code, state)

static MYSQL_STMT *prepare(MYSQL *c, const char *query) {
  MYSQL_STMT *s = mysql_stmt_init(c);
  SOK(s, mysql_stmt_prepare(s, query, strlen(query)));
  return s;
}

static void one_way(const char *plugin, int tls) {
  MYSQL *c = connected((struct how){.plugin = plugin, .tls = tls});
  SAME(one(c, "SELECT 1"), "1");
  WANT(!tls == !mysql_get_ssl_cipher(c), "TLS");
  mysql_close(c);
}

static void connect_native(void) { one_way("mysql_native_password", 0); }
static void connect_sha2(void) { one_way("caching_sha2_password", 0); }
static void connect_tls(void) {
  one_way("mysql_native_password", 1);
  one_way("caching_sha2_password", 1);
  one_way("mysql_clear_password", 1);
}

static void wrong_password(void) {
  const char *plugins[] = {"mysql_native_password", "caching_sha2_password"};
  for (int i = 0; i < 2; i++) {
    MYSQL *c = try_connect((struct how){.password = "wrong", .plugin = plugins[i]});
    refused(c, __LINE__, mysql_errno(c), 1045, "28000");
    mysql_close(c);
  }
  MYSQL *c = try_connect((struct how){.database = "nowhere"});
  refused(c, __LINE__, mysql_errno(c), 1049, "42000");
  mysql_close(c);
}

/* The columns of kinds that are bound here, as in-buffers and out-buffers. */
struct values {
  int8_t ti;
  uint16_t us;
  int32_t i;
  int64_t bi;
  uint64_t ub;
  float f;
  double d;
  char de[64], vc[200], st[20];
  MYSQL_TIME da, tm, dt;
  unsigned char bl[256];
  unsigned long lengths[14];
  my_bool null[14];
};
#define COLUMNS "ti, us, i, bi, ub, f, d, de, da, tm, dt, vc, bl, st"

static void bind_values(MYSQL_BIND *b, struct values *v) {
  struct { enum enum_field_types type; void *buffer; unsigned long size; my_bool is_unsigned; } all[14] = {
    {MYSQL_TYPE_TINY, &v->ti, 0, 0}, {MYSQL_TYPE_SHORT, &v->us, 0, 1}, {MYSQL_TYPE_LONG, &v->i, 0, 0}, {MYSQL_TYPE_LONGLONG, &v->bi, 0, 0},
    {MYSQL_TYPE_LONGLONG, &v->ub, 0, 1}, {MYSQL_TYPE_FLOAT, &v->f, 0, 0}, {MYSQL_TYPE_DOUBLE, &v->d, 0, 0}, {MYSQL_TYPE_NEWDECIMAL, v->de, sizeof v->de, 0},
    {MYSQL_TYPE_DATE, &v->da, sizeof v->da, 0}, {MYSQL_TYPE_TIME, &v->tm, sizeof v->tm, 0}, {MYSQL_TYPE_DATETIME, &v->dt, sizeof v->dt, 0},
    {MYSQL_TYPE_STRING, v->vc, sizeof v->vc, 0}, {MYSQL_TYPE_BLOB, v->bl, sizeof v->bl, 0}, {MYSQL_TYPE_STRING, v->st, sizeof v->st, 0}};
  memset(b, 0, 14 * sizeof *b);
  for (int i = 0; i < 14; i++) {
    b[i].buffer_type = all[i].type;
    b[i].buffer = all[i].buffer;
    b[i].buffer_length = all[i].size;
    b[i].is_unsigned = all[i].is_unsigned;
    b[i].length = &v->lengths[i];
    b[i].is_null = &v->null[i];
  }
}

static void types(void) {
  MYSQL *c = connected((struct how){0});
  struct values in = {.ti = -128, .us = 65535, .i = 2147483647, .bi = INT64_MIN, .ub = UINT64_MAX, .f = 1.5f, .d = -2.25e100,
    .de = "12345678901234567890.0123456789", .vc = "a'b\"c\\d\n\xf0\x9f\x90\x98", .st = "x,z",
    .da = {.year = 2024, .month = 2, .day = 29, .time_type = MYSQL_TIMESTAMP_DATE},
    .tm = {.neg = 1, .day = 33, .hour = 8, .minute = 1, .second_part = 5, .time_type = MYSQL_TIMESTAMP_TIME},
    .dt = {.year = 9999, .month = 12, .day = 31, .hour = 23, .minute = 59, .second = 59, .second_part = 999999, .time_type = MYSQL_TIMESTAMP_DATETIME}}, back;
  for (int i = 0; i < 256; i++) in.bl[i] = (unsigned char)i;
  in.lengths[7] = strlen(in.de), in.lengths[11] = strlen(in.vc), in.lengths[12] = 256, in.lengths[13] = 3;
  MYSQL_BIND give[14], take[14];
  bind_values(give, &in);
  OK(c, mysql_query(c, "DELETE FROM kinds WHERE who = '" WHO "'"));
  MYSQL_STMT *insert = prepare(c, "INSERT INTO kinds (who, " COLUMNS ") VALUES ('" WHO "', ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)");
  EQUAL(mysql_stmt_param_count(insert), 14);
  SOK(insert, mysql_stmt_bind_param(insert, give));
  SOK(insert, mysql_stmt_execute(insert));
  EQUAL(mysql_stmt_affected_rows(insert), 1);

  MYSQL_STMT *select = prepare(c, "SELECT " COLUMNS " FROM kinds WHERE who = '" WHO "'");
  EQUAL(mysql_stmt_field_count(select), 14);
  for (int round = 0; round < 3; round++) { /* row by row, stored, through a cursor */
    unsigned long kind = round == 2 ? CURSOR_TYPE_READ_ONLY : CURSOR_TYPE_NO_CURSOR, rows = 1;
    mysql_stmt_attr_set(select, STMT_ATTR_CURSOR_TYPE, &kind);
    mysql_stmt_attr_set(select, STMT_ATTR_PREFETCH_ROWS, &rows);
    SOK(select, mysql_stmt_execute(select));
    memset(&back, 0, sizeof back);
    bind_values(take, &back);
    SOK(select, mysql_stmt_bind_result(select, take));
    if (round == 1) SOK(select, mysql_stmt_store_result(select));
    EQUAL(mysql_stmt_fetch(select), 0);
    EQUAL(back.ti, in.ti);
    EQUAL(back.us, in.us);
    EQUAL(back.i, in.i);
    EQUAL(back.bi, in.bi);
    WANT(back.ub == in.ub, "ub");
    WANT(back.f == in.f && back.d == in.d, "f, d");
    SAME(back.de, in.de);
    SAME(back.vc, in.vc);
    SAME(back.st, in.st);
    EQUAL(back.lengths[12], 256);
    WANT(!memcmp(back.bl, in.bl, 256), "bl");
    WANT(back.da.year == 2024 && back.da.month == 2 && back.da.day == 29, "da");
    WANT(back.tm.neg && back.tm.hour + 24 * back.tm.day == 800 && back.tm.minute == 1 && back.tm.second_part == 5, "tm %d %u", back.tm.neg, back.tm.hour);
    WANT(back.dt.year == 9999 && back.dt.second == 59 && back.dt.second_part == 999999, "dt");
    EQUAL(mysql_stmt_fetch(select), MYSQL_NO_DATA);
    SOK(select, mysql_stmt_free_result(select));
  }

  OK(c, mysql_query(c, "DELETE FROM kinds WHERE who = '" WHO "'"));
  memset(in.null, 1, sizeof in.null);
  SOK(insert, mysql_stmt_execute(insert));
  SOK(select, mysql_stmt_execute(select));
  EQUAL(mysql_stmt_fetch(select), 0);
  for (int i = 0; i < 14; i++) EQUAL(back.null[i], 1);
  EQUAL(mysql_stmt_fetch(select), MYSQL_NO_DATA);
  mysql_stmt_close(insert);
  mysql_stmt_close(select);

  MYSQL_STMT *bad = mysql_stmt_init(c);
  WANT(mysql_stmt_prepare(bad, "SELECT * FROM missing", 21), "prepared");
  EQUAL(mysql_stmt_errno(bad), 1146);
  SAME(mysql_stmt_sqlstate(bad), "42S02");
  mysql_stmt_close(bad);
  mysql_close(c);
}

/* A cursor of many rows, with other statements between its fetches. */
static void cursor(void) {
  MYSQL *c = connected((struct how){0});
  MYSQL_STMT *s = prepare(c, "SELECT seq FROM seq_1_to_1000");
  unsigned long kind = CURSOR_TYPE_READ_ONLY, rows = 100;
  mysql_stmt_attr_set(s, STMT_ATTR_CURSOR_TYPE, &kind);
  mysql_stmt_attr_set(s, STMT_ATTR_PREFETCH_ROWS, &rows);
  SOK(s, mysql_stmt_execute(s));
  int32_t n = 0;
  MYSQL_BIND b = {.buffer_type = MYSQL_TYPE_LONG, .buffer = &n};
  SOK(s, mysql_stmt_bind_result(s, &b));
  for (int i = 1; i <= 1000; i++) {
    EQUAL(mysql_stmt_fetch(s), 0);
    EQUAL(n, i);
    if (i % 250 == 0) SAME(one(c, "SELECT 'between'"), "between");
  }
  EQUAL(mysql_stmt_fetch(s), MYSQL_NO_DATA);
  mysql_stmt_close(s);
  mysql_close(c);
}

static void blob(void) {
  unsigned long size = 17ul << 20;
  unsigned char *data = malloc(size), *back = malloc(size);
  for (unsigned long i = 0; i < size; i++) data[i] = (unsigned char)(i * 7 + (i >> 12));
  MYSQL *c = connected((struct how){0});
  unsigned long max = 64ul << 20;
  mysql_options(c, MYSQL_OPT_MAX_ALLOWED_PACKET, &max);
  for (int round = 0; round < 2; round++) {
    MYSQL_STMT *s = prepare(c, "REPLACE INTO blobs VALUES ('" WHO "', ?)");
    MYSQL_BIND b = {.buffer_type = MYSQL_TYPE_LONG_BLOB, .buffer = data, .buffer_length = size, .length = round ? NULL : &size};
    SOK(s, mysql_stmt_bind_param(s, &b));
    if (round)
      for (unsigned long at = 0; at < size; at += 3 << 20) /* in pieces */
        SOK(s, mysql_stmt_send_long_data(s, 0, (char *)data + at, size - at < 3 << 20 ? size - at : 3 << 20));
    SOK(s, mysql_stmt_execute(s));
    mysql_stmt_close(s);
    s = prepare(c, "SELECT b FROM blobs WHERE who = '" WHO "'");
    SOK(s, mysql_stmt_execute(s));
    unsigned long length = 0;
    MYSQL_BIND r = {.buffer_type = MYSQL_TYPE_LONG_BLOB, .buffer = back, .buffer_length = size, .length = &length};
    memset(back, 0, size);
    SOK(s, mysql_stmt_bind_result(s, &r));
    EQUAL(mysql_stmt_fetch(s), 0);
    EQUAL(length, size);
    WANT(!memcmp(data, back, size), "the blob");
    mysql_stmt_close(s);
  }
  OK(c, mysql_query(c, "SELECT b FROM blobs WHERE who = '" WHO "'"));
  MYSQL_RES *r = mysql_use_result(c);
  MYSQL_ROW row = mysql_fetch_row(r);
  WANT(row && mysql_fetch_lengths(r)[0] == size && !memcmp(row[0], data, size), "the blob as text");
  mysql_free_result(r);
  mysql_close(c);
  free(data);
  free(back);
}

static void transaction(void) {
  MYSQL *c = connected((struct how){0}), *other = connected((struct how){0});
  const char *count = "SELECT COUNT(*) FROM ledger WHERE who = '" WHO "'";
  OK(c, mysql_query(c, "DELETE FROM ledger WHERE who = '" WHO "'"));
  OK(c, mysql_autocommit(c, 0));
  OK(c, mysql_query(c, "INSERT INTO ledger VALUES ('" WHO "', 1)"));
  SAME(one(other, count), "0");
  OK(c, mysql_rollback(c));
  SAME(one(c, count), "0");
  OK(c, mysql_query(c, "INSERT INTO ledger VALUES ('" WHO "', 2)"));
  OK(c, mysql_commit(c));
  SAME(one(other, count), "1");
  OK(c, mysql_autocommit(c, 1));
  OK(c, mysql_query(c, "INSERT INTO ledger VALUES ('" WHO "', 3)"));
  SAME(one(other, count), "2");
  mysql_close(c);
  mysql_close(other);
}

static void results(void) {
  MYSQL *c = connected((struct how){.flags = CLIENT_MULTI_STATEMENTS});
  OK(c, mysql_query(c, "SELECT 1; DO 2; SELECT 3, 4"));
  int columns[] = {1, 0, 2}, i = 0, more = 0;
  do {
    MYSQL_RES *r = mysql_store_result(c);
    EQUAL(mysql_field_count(c), columns[i++]);
    if (r) mysql_free_result(r);
  } while (!(more = mysql_next_result(c)));
  EQUAL(more, -1);
  EQUAL(i, 3);
  OK(c, mysql_set_server_option(c, MYSQL_OPTION_MULTI_STATEMENTS_OFF));
  REFUSED(c, "SELECT 1; SELECT 2", 1064, "42000");
  OK(c, mysql_set_server_option(c, MYSQL_OPTION_MULTI_STATEMENTS_ON));
  OK(c, mysql_query(c, "SELECT 1; SELECT * FROM missing; SELECT 3"));
  mysql_free_result(mysql_store_result(c));
  refused(c, __LINE__, mysql_next_result(c), 1146, "42S02");
  SAME(one(c, "SELECT 5"), "5");
  mysql_close(c);
}

static void procedure(void) {
  MYSQL *c = connected((struct how){0});
  MYSQL_STMT *s = prepare(c, "CALL both_ways(?, ?)");
  int32_t in = 20, got = 0, unused = 0;
  MYSQL_BIND give[2] = {{.buffer_type = MYSQL_TYPE_LONG, .buffer = &in}, {.buffer_type = MYSQL_TYPE_LONG, .buffer = &unused}};
  SOK(s, mysql_stmt_bind_param(s, give));
  SOK(s, mysql_stmt_execute(s));
  int want[] = {20, 22, 21}, i = 0, more; /* two results, then the OUT parameter */
  do {
    if (!mysql_stmt_field_count(s)) continue;
    MYSQL_BIND take = {.buffer_type = MYSQL_TYPE_LONG, .buffer = &got};
    SOK(s, mysql_stmt_bind_result(s, &take));
    EQUAL(mysql_stmt_fetch(s), 0);
    EQUAL(got, want[i++]);
    EQUAL(mysql_stmt_fetch(s), MYSQL_NO_DATA);
  } while (!(more = mysql_stmt_next_result(s)));
  EQUAL(i, 3);
  mysql_stmt_close(s);
  SAME(one(c, "SELECT 5"), "5");
  mysql_close(c);
}

static void charsets(void) {
  struct { const char *name, *text; } all[] = {
    {"utf8mb4", "na\xc3\xafve \xf0\x9f\x90\x98"}, {"latin1", "na\xefve \xff"}, {"gbk", "\xba\xba\xd7\xd6\xd5\x5c \xbf\x5c'"}, {"sjis", "\x95\x5c\x8e\xa6\x83\x5c'"}, {"big5", "\xb3\x5c\xa5\x5c'"}};
  for (int i = 0; i < 5; i++) {
    MYSQL *c = connected((struct how){.charset = all[i].name});
    char escaped[200], query[400];
    mysql_real_escape_string(c, escaped, all[i].text, strlen(all[i].text));
    snprintf(query, sizeof query, "REPLACE INTO texts VALUES ('" WHO "', '%s')", escaped);
    OK(c, mysql_query(c, query));
    SAME(one(c, "SELECT t FROM texts WHERE who = '" WHO "'"), all[i].text);
    MYSQL_STMT *s = prepare(c, "REPLACE INTO texts VALUES ('" WHO "', CONCAT(?, '!'))");
    MYSQL_BIND b = {.buffer_type = MYSQL_TYPE_STRING, .buffer = (char *)all[i].text, .buffer_length = strlen(all[i].text)};
    SOK(s, mysql_stmt_bind_param(s, &b));
    SOK(s, mysql_stmt_execute(s));
    mysql_stmt_close(s);
    snprintf(query, sizeof query, "%s!", all[i].text);
    SAME(one(c, "SELECT t FROM texts WHERE who = '" WHO "'"), query);
    SAME(one(c, "SELECT @@character_set_client"), all[i].name);
    OK(c, mysql_set_character_set(c, "utf8mb4"));
    SAME(one(c, "SELECT @@character_set_client"), "utf8mb4");
    mysql_close(c);
  }
}

static void load_data(void) {
  MYSQL *c = connected((struct how){0});
  char query[600];
  OK(c, mysql_query(c, "DELETE FROM loaded WHERE who = '" WHO "'"));
  snprintf(query, sizeof query, "LOAD DATA LOCAL INFILE '%s' INTO TABLE loaded (n, t) SET who = '" WHO "'", file);
  OK(c, mysql_query(c, query));
  EQUAL(mysql_affected_rows(c), 100000);
  SAME(one(c, "SELECT SUM(n) FROM loaded WHERE who = '" WHO "'"), "5000050000");
  WANT(mysql_query(c, "LOAD DATA LOCAL INFILE '/nowhere/at/all' INTO TABLE loaded (n, t)"), "loaded a file that is not there");
  SAME(one(c, "SELECT 5"), "5");
  mysql_close(c);
}

static void disconnect(void) {
  MYSQL *c = connected((struct how){0});
  OK(c, mysql_query(c, "SELECT seq, REPEAT('d', 1000) FROM seq_1_to_5000000"));
  MYSQL_RES *r = mysql_use_result(c);
  WANT(mysql_fetch_row(r), "a row");
  struct linger now = {1, 0};
  setsockopt(mysql_get_socket(c), SOL_SOCKET, SO_LINGER, &now, sizeof now);
  close(mysql_get_socket(c)); /* a reset; the library's own memory is left to the end of the process */
}

static void errors(void) {
  MYSQL *c = connected((struct how){0});
  REFUSED(c, "SELECT * FROM missing", 1146, "42S02");
  REFUSED(c, "SELEKT", 1064, "42000");
  REFUSED(c, "INSERT INTO unique_one VALUES (1), (1)", 1062, "23000");
  REFUSED(c, "SIGNAL SQLSTATE '45000' SET MESSAGE_TEXT = 'own'", 1644, "45000");
  SAME(mysql_error(c), "own");
  SAME(one(c, "SELECT 1"), "1");
  OK(c, mysql_query(c, "SELECT CAST('x' AS INT)"));
  mysql_free_result(mysql_store_result(c));
  EQUAL(mysql_warning_count(c), 1);
  SAME(one(c, "SHOW WARNINGS"), "Warning");
  mysql_close(c);
}

static void stream(void) {
  MYSQL *c = connected((struct how){0});
  OK(c, mysql_query(c, "SELECT seq, REPEAT('s', 500) FROM seq_1_to_50000"));
  MYSQL_RES *r = mysql_use_result(c);
  MYSQL_ROW row;
  long long total = 0;
  while ((row = mysql_fetch_row(r))) total += atoll(row[0]);
  EQUAL(mysql_errno(c), 0);
  EQUAL(total, 50000ll * 50001 / 2);
  mysql_free_result(r);
  mysql_close(c);
}

static void kill_and_reconnect(void) {
  MYSQL *c = connected((struct how){.reconnect = 1}), *other = connected((struct how){0});
  char query[100], id[30];
  snprintf(id, sizeof id, "%lu", mysql_thread_id(c));
  SAME(one(c, "SELECT CONNECTION_ID()"), id);
  OK(other, mysql_kill(other, mysql_thread_id(c)));
  int lost = mysql_query(c, "SELECT 1");
  if (lost) { /* the first statement after it may fail; then the library connects again */
    WANT(mysql_errno(c) == 2006 || mysql_errno(c) == 2013 || mysql_errno(c) == 1053, "%u %s", mysql_errno(c), mysql_error(c));
    OK(c, mysql_ping(c));
  } else
    mysql_free_result(mysql_store_result(c));
  SAME(one(c, "SELECT 2"), "2");
  snprintf(query, sizeof query, "%lu", mysql_thread_id(c));
  WANT(strcmp(query, id), "a new session has the old number");
  mysql_close(c);
  mysql_close(other);
}

static void change_user(void) {
  const char *plugins[] = {"mysql_native_password", "caching_sha2_password"};
  for (int i = 0; i < 2; i++) {
    MYSQL *c = connected((struct how){.plugin = plugins[i]});
    OK(c, mysql_query(c, "SET @x = 1"));
    OK(c, mysql_query(c, "SET time_zone = '+05:30'"));
    OK(c, mysql_change_user(c, "other", "orange", "stock"));
    WANT(!one(c, "SELECT @x"), "@x");
    SAME(one(c, "SELECT @@time_zone = '+05:30'"), "0");
    SAME(one(c, "SELECT n FROM stock_one"), "7");
    refused(c, __LINE__, mysql_change_user(c, "app", "wrong", "shop"), 1045, "28000");
    mysql_close(c);
  }
}

static void reset(void) {
  MYSQL *c = connected((struct how){0});
  OK(c, mysql_query(c, "SET @x = 1"));
  OK(c, mysql_query(c, "SET time_zone = '+05:30'"));
  OK(c, mysql_query(c, "CREATE TEMPORARY TABLE tt (i INT)"));
  OK(c, mysql_query(c, "BEGIN"));
  OK(c, mysql_query(c, "INSERT INTO ledger VALUES ('" WHO "-reset', 9)"));
  OK(c, mysql_reset_connection(c));
  WANT(!one(c, "SELECT @x"), "@x");
  SAME(one(c, "SELECT @@time_zone = '+05:30'"), "0");
  SAME(one(c, "SELECT DATABASE()"), "shop");
  SAME(one(c, "SELECT COUNT(*) FROM ledger WHERE who = '" WHO "-reset'"), "0");
  REFUSED(c, "SELECT * FROM tt", 1146, "42S02");
  mysql_close(c);
}

static void commands(void) {
  MYSQL *c = connected((struct how){0});
  OK(c, mysql_ping(c));
  WANT(strstr(mysql_stat(c), "Uptime"), "statistics");
  OK(c, mysql_select_db(c, "stock"));
  SAME(one(c, "SELECT n FROM stock_one"), "7");
  refused(c, __LINE__, mysql_select_db(c, "nowhere"), 1049, "42000");
  MYSQL_RES *r = mysql_list_fields(c, "stock_one", NULL);
  WANT(r && mysql_num_fields(r) == 1, "list of fields: %s", mysql_error(c));
  mysql_free_result(r);
  r = mysql_list_processes(c);
  WANT(r, "list of processes: %s", mysql_error(c));
  mysql_free_result(r);
  OK(c, mysql_query(c, "INSERT INTO shop.numbered VALUES ()"));
  unsigned long long id = mysql_insert_id(c);
  WANT(id > 0, "no insert id");
  char want[30];
  snprintf(want, sizeof want, "%llu", id);
  SAME(one(c, "SELECT LAST_INSERT_ID()"), want);
  mysql_close(c);
}

/* zlib, alone and inside of TLS: large and small, both ways. */
static void compressed(void) {
  for (int tls = 0; tls < 2; tls++) {
    MYSQL *c = connected((struct how){.compress = 1, .tls = tls});
    SAME(one(c, "SHOW SESSION STATUS LIKE 'Compression'"), "Compression");
    unsigned long size = 17ul << 20;
    char *query = malloc(size + 100);
    int at = sprintf(query, "REPLACE INTO blobs VALUES ('" WHO "', '");
    for (unsigned long i = 0; i < size; i++) query[at + i] = (char)('a' + (i * 7 + (i >> 12)) % 26);
    sprintf(query + at + size, "')");
    OK(c, mysql_real_query(c, query, at + size + 2));
    OK(c, mysql_query(c, "SELECT b FROM blobs WHERE who = '" WHO "'"));
    MYSQL_RES *r = mysql_use_result(c);
    MYSQL_ROW row = mysql_fetch_row(r);
    WANT(row && mysql_fetch_lengths(r)[0] == size && !memcmp(row[0], query + at, size), "the blob");
    mysql_free_result(r);
    free(query);
    for (int i = 0; i < 50; i++) SAME(one(c, "SELECT 'small'"), "small");
    REFUSED(c, "SELECT * FROM missing", 1146, "42S02");
    OK(c, mysql_query(c, "SELECT seq, REPEAT('s', 500) FROM seq_1_to_20000"));
    r = mysql_use_result(c);
    long long total = 0;
    while ((row = mysql_fetch_row(r))) total += atoll(row[0]);
    EQUAL(total, 20000ll * 20001 / 2);
    mysql_free_result(r);
    OK(c, mysql_reset_connection(c));
    SAME(one(c, "SELECT 1"), "1");
    mysql_close(c);
  }
}

static void check(const char *name, void (*f)(void)) {
  running = name;
  if (!setjmp(out_of_check)) {
    f();
    printf("ok %s\n", name);
  }
  fflush(stdout);
}

int main(void) {
  host = getenv("MENSHEN_HOST");
  port = (unsigned)atoi(getenv("MENSHEN_PORT"));
  ca = getenv("MENSHEN_CA");
  file = getenv("MENSHEN_FILE");
#define CHECK(f) check(#f, f)
  CHECK(connect_native);
  CHECK(connect_sha2);
  CHECK(connect_tls);
  CHECK(wrong_password);
  CHECK(types);
  CHECK(cursor);
  CHECK(blob);
  CHECK(transaction);
  CHECK(results);
  CHECK(procedure);
  CHECK(charsets);
  CHECK(load_data);
  CHECK(disconnect);
  CHECK(errors);
  CHECK(stream);
  check("kill", kill_and_reconnect);
  CHECK(change_user);
  CHECK(reset);
  CHECK(commands);
  CHECK(compressed);
  return failed;
}
