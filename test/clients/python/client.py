"""pymysql through the gateway; see ../clients.go."""
import datetime
import decimal
import hashlib
import os
import sys
import traceback

import pymysql
import pymysql.cursors
from pymysql.constants import CLIENT

HOST, PORT = os.environ["MENSHEN_HOST"], int(os.environ["MENSHEN_PORT"])
CA, FILE = os.environ["MENSHEN_CA"], os.environ["MENSHEN_FILE"]
WHO = "python"
failed = False


def connect(**more):
    settings = dict(host=HOST, port=PORT, user="app", password="apple", database="shop", charset="utf8mb4", autocommit=True)
    settings.update(more)
    return pymysql.connect(**settings)


def ask(c, sql, *args):
    with c.cursor() as cursor:
        cursor.execute(sql, args or None)
        return cursor.fetchall()


def equal(got, want, what=""):
    if got != want:
        raise AssertionError(f"{what} got {got!r}, want {want!r}")


def refused(code, f):
    try:
        f()
    except pymysql.MySQLError as e:
        equal(e.args[0], code, str(e))
        return e
    raise AssertionError(f"no error, want {code}")


def check(f):
    global failed
    try:
        f()
        print("ok", f.__name__)
    except Exception as e:
        failed = True
        print(f"FAIL {f.__name__}: {e!r}")
        traceback.print_exc()


def connect_sha2():
    with connect() as c:
        equal(ask(c, "SELECT 1"), ((1,),))
        equal(c._auth_plugin_name, "caching_sha2_password")


def connect_tls():
    with connect(ssl_ca=CA, ssl_verify_cert=True, ssl_verify_identity=True) as c:
        equal(ask(c, "SELECT 1"), ((1,),))
        equal(c._secure, True)


def wrong_password():
    refused(1045, lambda: connect(password="wrong"))
    refused(1045, lambda: connect(password=""))
    refused(1049, lambda: connect(database="nowhere"))


def types():
    # pymysql has no prepared statements of the protocol: values are put into the text, rows come as text.
    values = (
        -128, 65535, 2147483647, -9223372036854775808, 18446744073709551615, 1.5, -2.25e100, decimal.Decimal("12345678901234567890.0123456789"),
        datetime.date(2024, 2, 29), datetime.timedelta(hours=800, minutes=1, microseconds=5), datetime.datetime(9999, 12, 31, 23, 59, 59, 999999),
        "a'b\"c\\d\0e\n🐘", bytes(range(256)), "x,y".replace("y", "z"),
    )
    with connect() as c:
        ask(c, "DELETE FROM kinds WHERE who = %s", WHO)
        marks = ", ".join(["%s"] * len(values))
        ask(c, f"INSERT INTO kinds (who, ti, us, i, bi, ub, f, d, de, da, tm, dt, vc, bl, st) VALUES (%s, {marks})", WHO, *values)
        rows = ask(c, "SELECT ti, us, i, bi, ub, f, d, de, da, tm, dt, vc, bl, st FROM kinds WHERE who = %s", WHO)
        equal(rows, (values,))
        ask(c, "DELETE FROM kinds WHERE who = %s", WHO)
        ask(c, "INSERT INTO kinds (who) VALUES (%s)", WHO)
        rows = ask(c, "SELECT ti, us, i, bi, ub, f, d, de, da, tm, dt, vc, bl, st FROM kinds WHERE who = %s", WHO)
        equal(rows, ((None,) * len(values),))


def blob():
    data = hashlib.sha256(b"x").digest() * (17 << 15)  # 17 MiB: two packets
    with connect(max_allowed_packet=64 << 20) as c:
        ask(c, "REPLACE INTO blobs VALUES (%s, %s)", WHO, data)
        ((back, length),) = ask(c, "SELECT b, LENGTH(b) FROM blobs WHERE who = %s", WHO)
        equal(length, len(data))
        equal(back == data, True, "the blob")


def transaction():
    with connect(autocommit=False) as c, connect() as other:
        ask(other, "DELETE FROM ledger WHERE who = %s", WHO)
        count = lambda: ask(other, "SELECT COUNT(*) FROM ledger WHERE who = %s", WHO)[0][0]
        ask(c, "INSERT INTO ledger VALUES (%s, 1)", WHO)
        equal(count(), 0)
        c.rollback()
        equal(count(), 0)
        ask(c, "INSERT INTO ledger VALUES (%s, 2)", WHO)
        c.commit()
        equal(count(), 1)
        c.begin()
        ask(c, "INSERT INTO ledger VALUES (%s, 3)", WHO)
        ask(c, "SAVEPOINT s")
        ask(c, "INSERT INTO ledger VALUES (%s, 4)", WHO)
        ask(c, "ROLLBACK TO s")
        c.commit()
        equal(count(), 2)


def results():
    with connect(client_flag=CLIENT.MULTI_STATEMENTS) as c, c.cursor() as cursor:
        cursor.execute("SELECT 1; DO 2; SELECT 3, 4")
        equal(cursor.fetchall(), ((1,),))
        equal(cursor.nextset(), True)
        equal(cursor.fetchall(), ())
        equal(cursor.nextset(), True)
        equal(cursor.fetchall(), ((3, 4),))
        equal(cursor.nextset(), None)
        cursor.execute("SELECT 1; SELECT * FROM missing; SELECT 3")
        refused(1146, cursor.nextset)
    with connect() as c:
        refused(1064, lambda: ask(c, "SELECT 1; SELECT 2"))


def procedure():
    with connect() as c, c.cursor() as cursor:
        cursor.callproc("both_ways", (20, 0))
        equal(cursor.fetchall(), ((20,),))
        equal(cursor.nextset(), True)
        equal(cursor.fetchall(), ((22,),))
        equal(cursor.nextset(), True)
        equal(cursor.nextset(), None)
        cursor.execute("SELECT @_both_ways_1")
        equal(cursor.fetchall(), ((21,),))


def charsets():
    for charset, text in (("utf8mb4", "naïve 🐘 漢字"), ("latin1", "naïve ÿ"), ("gbk", "漢字誠\\縗'運\\"), ("sjis", "表示ソ'")):
        with connect(charset=charset) as c:
            ask(c, "REPLACE INTO texts VALUES (%s, %s)", WHO, text)
            equal(ask(c, "SELECT t FROM texts WHERE who = %s", WHO), ((text,),), charset)
            equal(ask(c, "SELECT @@character_set_client, @@character_set_results"), ((charset, charset),))
        with connect() as c:
            equal(ask(c, "SELECT t FROM texts WHERE who = %s", WHO), ((text,),), charset + " as utf8mb4")


def load_data():
    with connect(local_infile=True) as c:
        ask(c, "DELETE FROM loaded WHERE who = %s", WHO)
        ask(c, f"LOAD DATA LOCAL INFILE '{FILE}' INTO TABLE loaded (n, t) SET who = '{WHO}'")
        equal(ask(c, "SELECT COUNT(*), SUM(n), MAX(LENGTH(t)) FROM loaded WHERE who = %s", WHO), ((100000, decimal.Decimal(5000050000), 90),))
        try:  # pymysql sends nothing for a file that is not there, and the server takes it for an empty one
            ask(c, f"LOAD DATA LOCAL INFILE '{FILE}.missing' INTO TABLE loaded (n, t)")
        except pymysql.MySQLError as e:
            equal(e.args[0], 1017, str(e))
        equal(ask(c, "SELECT 5"), ((5,),))


def disconnect():
    c = connect(cursorclass=pymysql.cursors.SSCursor)
    cursor = c.cursor()
    cursor.execute("SELECT seq, REPEAT('d', 1000) FROM seq_1_to_5000000")
    for _ in range(10):
        cursor.fetchone()
    sys.unraisablehook = lambda _: None  # the destructors want to read on
    c._force_close()  # without a word


def errors():
    with connect() as c:
        e = refused(1146, lambda: ask(c, "SELECT * FROM missing"))
        equal("shop.missing" in e.args[1], True, e.args[1])
        refused(1064, lambda: ask(c, "SELEKT"))
        refused(1062, lambda: ask(c, "INSERT INTO unique_one VALUES (1), (1)"))
        refused(1054, lambda: ask(c, "SELECT nothing"))
        refused(1644, lambda: ask(c, "SIGNAL SQLSTATE '45000' SET MESSAGE_TEXT = 'own'"))
        equal(ask(c, "SELECT 1"), ((1,),))


def stream():
    with connect(cursorclass=pymysql.cursors.SSCursor) as c, c.cursor() as cursor:
        cursor.execute("SELECT seq, REPEAT('s', 500) FROM seq_1_to_50000")
        total = sum(row[0] for row in cursor)
        equal(total, 50000 * 50001 // 2)
        cursor.execute("SELECT 1")
        equal(cursor.fetchall(), [(1,)])


def kill():
    with connect() as c, connect() as other:
        equal(ask(c, "SELECT CONNECTION_ID()"), ((c.thread_id(),),))
        ask(other, "KILL %s", c.thread_id())
        try:
            ask(c, "SELECT 1")
            raise AssertionError("a killed session answers")
        except pymysql.MySQLError as e:
            if e.args[0] not in (2006, 2013, 1053):
                raise
        c.ping(reconnect=True)
        equal(ask(c, "SELECT 2"), ((2,),))


def settings():
    with connect() as c, connect() as other:
        ask(c, "SET SESSION sql_mode = 'ANSI_QUOTES', time_zone = '+05:30'")
        c.select_db("stock")
        equal(ask(c, 'SELECT "n", @@time_zone, DATABASE() FROM stock_one'), ((7, "+05:30", "stock_0"),))
        equal(ask(other, 'SELECT "n", @@time_zone = \'+05:30\', DATABASE()'), (("n", 0, "shop"),))


for f in (connect_sha2, connect_tls, wrong_password, types, blob, transaction, results, procedure, charsets, load_data, disconnect, errors, stream, kill, settings):
    check(f)
sys.exit(1 if failed else 0)
