<?php
// mysqli and PDO (both on mysqlnd) through the gateway; see ../clients.go. The first argument says which: mysqli or pdo.
declare(strict_types=1);
mysqli_report(MYSQLI_REPORT_ERROR | MYSQLI_REPORT_STRICT);
error_reporting(E_ALL);
ini_set('memory_limit', '512M');
// A warning is a failure, but for those that PHP gives beside the exception when a server hangs up.
set_error_handler(function (int $no, string $message) {
    if (preg_match('/server has gone away|Error while reading|bytes failed with errno|Packets out of order/', $message)) return true;
    throw new ErrorException($message, 0, $no);
});

$host = getenv('MENSHEN_HOST');
$port = (int) getenv('MENSHEN_PORT');
$ca = getenv('MENSHEN_CA');
$file = getenv('MENSHEN_FILE');
$which = $argv[1];
$who = "php-$which";

function same(mixed $want, mixed $got, string $what = ''): void {
    if ($want !== $got) throw new Exception("$what got " . substr(var_export($got, true), 0, 500) . ', want ' . substr(var_export($want, true), 0, 500));
}

function refused(int $code, string $state, callable $f): void {
    try {
        $f();
    } catch (mysqli_sql_exception $e) {
        same([$code, $state], [$e->getCode(), $e->getSqlState()], $e->getMessage());
        return;
    } catch (PDOException $e) {
        same([$code, $state], [$e->errorInfo[1], $e->errorInfo[0]], $e->getMessage());
        return;
    }
    throw new Exception("no error, want $code");
}

$values = [-128, 65535, 2147483647, PHP_INT_MIN, '18446744073709551615', 1.5, -2.25e100, '12345678901234567890.0123456789', '2024-02-29',
    '-800:01:00.000005', '9999-12-31 23:59:59.999999', "a'b\"c\\d\0e\n🐘", implode('', array_map('chr', range(0, 255))), 'x,z'];
$columns = 'ti, us, i, bi, ub, f, d, de, da, tm, dt, vc, bl, st';
$marks = implode(', ', array_fill(0, count($values), '?'));
$charsets = ['utf8mb4' => 'naïve 🐘 漢字', 'latin1' => "na\xefve \xff", 'gbk' => "\xba\xba\xd7\xd6\xd5\x5c \xbf\x5c'"];

function one(mysqli $c, string $sql): mixed { return $c->query($sql)->fetch_row()[0]; }

function my(array $more = []): mysqli {
    global $host, $port;
    $more += ['user' => 'app', 'password' => 'apple', 'database' => 'shop', 'charset' => 'utf8mb4'];
    $c = mysqli_init();
    $c->options(MYSQLI_OPT_LOCAL_INFILE, true);
    $c->options(MYSQLI_OPT_INT_AND_FLOAT_NATIVE, true);
    $c->real_connect($host, $more['user'], $more['password'], $more['database'], $port);
    $c->set_charset($more['charset']);
    return $c;
}

$mysqli = [
    'connect_sha2' => fn() => same(1, one(my(), 'SELECT 1')),
    'connect_tls' => function () {
        $c = mysqli_init();
        $c->ssl_set(null, null, $GLOBALS['ca'], null, null);
        $c->options(MYSQLI_OPT_SSL_VERIFY_SERVER_CERT, true);
        $c->real_connect($GLOBALS['host'], 'app', 'apple', 'shop', $GLOBALS['port'], null, MYSQLI_CLIENT_SSL);
        same('1', one($c, 'SELECT 1'));
    },
    'wrong_password' => function () {
        foreach ([1045 => ['password' => 'wrong'], 1049 => ['database' => 'nowhere']] as $code => $more) {
            try {
                my($more);
                throw new Exception("no error, want $code");
            } catch (mysqli_sql_exception $e) { // whose state depends on the plugin that was tried
                same($code, $e->getCode());
            }
        }
    },
    'types' => function () use ($who, $values, $columns, $marks) {
        $c = my();
        $c->execute_query('DELETE FROM kinds WHERE who = ?', [$who]);
        $s = $c->prepare("INSERT INTO kinds (who, $columns) VALUES (?, $marks)");
        $s->bind_param('siiiisddsssssss', $who, ...$values);
        $s->execute();
        $select = $c->prepare("SELECT $columns FROM kinds WHERE who = ?");
        foreach ([1, 2] as $_) {
            $select->execute([$who]);
            same($values, $select->get_result()->fetch_row(), 'prepared');
        }
        same($values, $c->query("SELECT $columns FROM kinds WHERE who = '$who'")->fetch_row(), 'text');
        $c->execute_query('DELETE FROM kinds WHERE who = ?', [$who]);
        $nulls = array_fill(0, count($values), null);
        $s->bind_param('siiiisddsssssss', $who, ...$nulls);
        $s->execute();
        $select->execute([$who]);
        same($nulls, $select->get_result()->fetch_row(), 'NULL');
        refused(1146, '42S02', fn() => $c->prepare('SELECT * FROM missing'));
        // A server-side cursor.
        $s = $c->prepare('SELECT seq FROM seq_1_to_500');
        $s->attr_set(MYSQLI_STMT_ATTR_CURSOR_TYPE, MYSQLI_CURSOR_TYPE_READ_ONLY);
        $s->execute();
        $s->bind_result($n);
        for ($i = 1; $s->fetch(); $i++) same($i, $n);
        same(501, $i);
    },
    'blob' => function () use ($who) {
        $data = str_repeat(hash('sha256', 'x', true), 17 << 15);
        $c = my();
        $s = $c->prepare('REPLACE INTO blobs VALUES (?, ?)');
        $null = null;
        $s->bind_param('sb', $who, $null);
        for ($at = 0; $at < strlen($data); $at += 5 << 20) $s->send_long_data(1, substr($data, $at, 5 << 20));
        $s->execute();
        same(true, $data === $c->execute_query('SELECT b FROM blobs WHERE who = ?', [$who])->fetch_row()[0], 'in pieces');
        $c->query("REPLACE INTO blobs VALUES ('$who', '" . $c->real_escape_string($data) . "')");
        same(true, $data === one($c, "SELECT b FROM blobs WHERE who = '$who'"), 'as text');
    },
    'transaction' => function () use ($who) {
        [$c, $other] = [my(), my()];
        $count = fn() => one($other, "SELECT COUNT(*) FROM ledger WHERE who = '$who'");
        $c->query("DELETE FROM ledger WHERE who = '$who'");
        $c->begin_transaction();
        $c->query("INSERT INTO ledger VALUES ('$who', 1)");
        same(0, $count());
        $c->rollback();
        same(0, $count());
        $c->autocommit(false);
        $c->query("INSERT INTO ledger VALUES ('$who', 2)");
        same(0, $count());
        $c->commit();
        same(1, $count());
    },
    'results' => function () {
        $c = my();
        $c->multi_query('SELECT 1; DO 2; SELECT 3, 4');
        $all = [];
        do {
            $r = $c->store_result();
            $all[] = $r ? $r->fetch_row() : null;
        } while ($c->more_results() && $c->next_result());
        same([[1], null, [3, 4]], $all);
        refused(1064, '42000', fn() => $c->query('SELECT 1; SELECT 2'));
        $c->multi_query('SELECT 1; SELECT * FROM missing');
        $c->store_result();
        refused(1146, '42S02', fn() => $c->next_result());
        same(5, one($c, 'SELECT 5'));
    },
    'procedure' => function () {
        $c = my();
        $s = $c->prepare('CALL both_ways(?, @o)');
        $s->execute([20]);
        $all = [];
        do {
            if ($r = $s->get_result()) $all[] = $r->fetch_row();
        } while ($s->next_result());
        same([[20], [22]], $all);
        $s->close();
        same(21, one($c, 'SELECT @o'));
    },
    'charsets' => function () use ($who, $charsets) {
        foreach ($charsets as $charset => $text) {
            $c = my(['charset' => $charset]);
            $c->query("REPLACE INTO texts VALUES ('$who', '" . $c->real_escape_string($text) . "')");
            same($text, one($c, "SELECT t FROM texts WHERE who = '$who'"), $charset);
            $c->execute_query('REPLACE INTO texts VALUES (?, ?)', [$who, $text . '!']);
            same($text . '!', $c->execute_query('SELECT t FROM texts WHERE who = ?', [$who])->fetch_row()[0], $charset);
        }
    },
    'load_data' => function () use ($who, $file) {
        $c = my();
        $c->query("DELETE FROM loaded WHERE who = '$who'");
        $c->query("LOAD DATA LOCAL INFILE '$file' INTO TABLE loaded (n, t) SET who = '$who'");
        same([100000, '5000050000'], $c->query("SELECT COUNT(*), SUM(n) FROM loaded WHERE who = '$who'")->fetch_row());
        try {
            $c->query("LOAD DATA LOCAL INFILE '$file.missing' INTO TABLE loaded (n, t)");
            throw new Exception('loaded a file that is not there');
        } catch (mysqli_sql_exception|ErrorException) {
        }
    },
    'disconnect' => function () {
        // A PHP process that is killed is the only way to a client that leaves without a word.
        $pid = proc_open([PHP_BINARY, __FILE__, 'vanish'], [1 => ['pipe', 'w']], $pipes);
        same("row\n", fgets($pipes[1]));
        proc_terminate($pid, 9);
        proc_close($pid);
    },
    'errors' => function () {
        $c = my();
        refused(1146, '42S02', fn() => $c->query('SELECT * FROM missing'));
        refused(1064, '42000', fn() => $c->query('SELEKT'));
        refused(1062, '23000', fn() => $c->query('INSERT INTO unique_one VALUES (1), (1)'));
        refused(1644, '45000', fn() => $c->query("SIGNAL SQLSTATE '45000' SET MESSAGE_TEXT = 'own'"));
        $c->query("SELECT CAST('x' AS INT)")->free();
        same(1, $c->warning_count);
        same(1292, $c->get_warnings()->errno);
    },
    'stream' => function () {
        $c = my();
        $total = 0;
        foreach ($c->query("SELECT seq, REPEAT('s', 500) FROM seq_1_to_50000", MYSQLI_USE_RESULT) as $row) $total += $row['seq'];
        same(50000 * 50001 / 2, $total);
    },
    'kill' => function () {
        [$c, $other] = [my(), my()];
        same($c->thread_id, one($c, 'SELECT CONNECTION_ID()'));
        $other->kill($c->thread_id);
        try {
            $c->query('SELECT 1');
            throw new Exception('a killed session answers');
        } catch (mysqli_sql_exception $e) {
            same(true, in_array($e->getCode(), [2006, 2013, 1053]), (string) $e->getCode());
        }
        same(2, one(my(), 'SELECT 2'));
    },
    'change_user' => function () {
        $c = my();
        $c->query('SET @x = 1');
        $c->query("SET time_zone = '+05:30'");
        $c->change_user('other', 'orange', 'stock');
        same([null, 0, 7], $c->query("SELECT @x, @@time_zone = '+05:30', n FROM stock_one")->fetch_row());
        try {
            $c->change_user('app', 'wrong', 'shop');
            throw new Exception('a wrong password is good enough');
        } catch (mysqli_sql_exception $e) {
            same(1045, $e->getCode());
        }
    },
    'compressed' => function () use ($who) {
        $c = mysqli_init();
        $c->real_connect($GLOBALS['host'], 'app', 'apple', 'shop', $GLOBALS['port'], null, MYSQLI_CLIENT_COMPRESS);
        $data = str_repeat(hash('sha256', 'y', true), 17 << 15);
        $c->execute_query('REPLACE INTO blobs VALUES (?, ?)', [$who, $data]);
        same(true, $data === $c->execute_query('SELECT b FROM blobs WHERE who = ?', [$who])->fetch_row()[0]);
        for ($i = 0; $i < 50; $i++) same((string) $i, one($c, "SELECT $i"));
        refused(1146, '42S02', fn() => $c->query('SELECT * FROM missing'));
    },
    'persistent' => function () {
        // A persistent connection is given to the next user of the process after COM_CHANGE_USER.
        $c = new mysqli('p:' . $GLOBALS['host'], 'app', 'apple', 'shop', $GLOBALS['port']);
        $id = $c->thread_id;
        $c->query('SET @x = 1');
        $c->close();
        $c = new mysqli('p:' . $GLOBALS['host'], 'app', 'apple', 'shop', $GLOBALS['port']);
        same($id, $c->thread_id);
        same(null, one($c, 'SELECT @x'));
    },
];

function pdo(array $options = [], string $charset = 'utf8mb4', string $user = 'app', string $password = 'apple', string $database = 'shop'): PDO {
    $options += [PDO::ATTR_ERRMODE => PDO::ERRMODE_EXCEPTION, PDO::ATTR_EMULATE_PREPARES => false, PDO::ATTR_DEFAULT_FETCH_MODE => PDO::FETCH_NUM, PDO::MYSQL_ATTR_LOCAL_INFILE => true];
    return new PDO("mysql:host={$GLOBALS['host']};port={$GLOBALS['port']};dbname=$database;charset=$charset", $user, $password, $options);
}

function run(PDO $c, string $sql, array $args = []): PDOStatement {
    $s = $c->prepare($sql);
    $s->execute($args);
    return $s;
}

$pdo = [
    'connect_sha2' => fn() => same(1, pdo()->query('SELECT 1')->fetchColumn()),
    'connect_tls' => function () {
        $c = pdo([PDO::MYSQL_ATTR_SSL_CA => $GLOBALS['ca'], PDO::MYSQL_ATTR_SSL_VERIFY_SERVER_CERT => true]);
        same(1, $c->query('SELECT 1')->fetchColumn());
    },
    'wrong_password' => function () {
        refused(1045, 'HY000', fn() => pdo([], 'utf8mb4', 'app', 'wrong')); // PDO gives no state of its own here
        refused(1049, 'HY000', fn() => pdo([], 'utf8mb4', 'app', 'apple', 'nowhere'));
    },
    'types' => function () use ($who, $values, $columns, $marks) {
        foreach ([false, true] as $emulate) {
            $c = pdo([PDO::ATTR_EMULATE_PREPARES => $emulate]);
            run($c, 'DELETE FROM kinds WHERE who = ?', [$who]);
            $insert = $c->prepare("INSERT INTO kinds (who, $columns) VALUES (?, $marks)");
            $insert->execute([$who, ...array_map(fn($v) => is_float($v) ? sprintf('%.17g', $v) : $v, $values)]);
            same($values, run($c, "SELECT $columns FROM kinds WHERE who = ?", [$who])->fetch(), $emulate ? 'emulated' : 'prepared');
            run($c, 'DELETE FROM kinds WHERE who = ?', [$who]);
            $nulls = array_fill(0, count($values), null);
            $insert->execute([$who, ...$nulls]);
            same($nulls, run($c, "SELECT $columns FROM kinds WHERE who = ?", [$who])->fetch(), 'NULL');
            refused(1146, '42S02', fn() => run($c, 'SELECT * FROM missing WHERE id = ?', [1]));
        }
    },
    'blob' => function () use ($who) {
        $data = str_repeat(hash('sha256', 'x', true), 17 << 15);
        $c = pdo();
        run($c, 'REPLACE INTO blobs VALUES (?, ?)', [$who, $data]);
        same(true, $data === run($c, 'SELECT b FROM blobs WHERE who = ?', [$who])->fetchColumn());
    },
    'transaction' => function () use ($who) {
        [$c, $other] = [pdo(), pdo()];
        $count = fn() => run($other, 'SELECT COUNT(*) FROM ledger WHERE who = ?', [$who])->fetchColumn();
        run($c, 'DELETE FROM ledger WHERE who = ?', [$who]);
        $c->beginTransaction();
        run($c, 'INSERT INTO ledger VALUES (?, 1)', [$who]);
        same(true, $c->inTransaction());
        same(0, $count());
        $c->rollBack();
        same(0, $count());
        $c->beginTransaction();
        run($c, 'INSERT INTO ledger VALUES (?, 2)', [$who]);
        $c->commit();
        same(1, $count());
        $c->query('INSERT INTO numbered VALUES ()');
        same($c->lastInsertId(), (string) $c->query('SELECT LAST_INSERT_ID()')->fetchColumn());
    },
    'results' => function () {
        $c = pdo([PDO::ATTR_EMULATE_PREPARES => true]);
        $s = $c->query('SELECT 1; DO 2; SELECT 3, 4');
        $all = [$s->fetchAll()];
        while ($s->nextRowset()) $all[] = $s->columnCount() ? $s->fetchAll() : null;
        same([[[1]], null, [[3, 4]]], $all);
        $c = pdo([PDO::MYSQL_ATTR_MULTI_STATEMENTS => false]);
        refused(1064, '42000', fn() => $c->query('SELECT 1; SELECT 2'));
    },
    'procedure' => function () {
        foreach ([false, true] as $emulate) {
            $c = pdo([PDO::ATTR_EMULATE_PREPARES => $emulate]);
            $s = run($c, 'CALL both_ways(?, @o)', [20]);
            $all = [];
            do {
                $all[] = $s->fetchAll();
            } while ($s->nextRowset());
            same([[[20]], [[22]]], array_filter($all)); // the last is the call's own OK, which has no rows
            unset($s);
            same(21, $c->query('SELECT @o')->fetchColumn());
        }
    },
    'charsets' => function () use ($who, $charsets) {
        foreach ($charsets as $charset => $text) {
            foreach ([false, true] as $emulate) {
                $c = pdo([PDO::ATTR_EMULATE_PREPARES => $emulate], $charset);
                run($c, 'REPLACE INTO texts VALUES (?, ?)', [$who, $text]);
                same($text, run($c, 'SELECT t FROM texts WHERE who = ?', [$who])->fetchColumn(), $charset);
            }
        }
    },
    'load_data' => function () use ($who, $file) {
        $c = pdo();
        run($c, 'DELETE FROM loaded WHERE who = ?', [$who]);
        same(100000, $c->exec("LOAD DATA LOCAL INFILE '$file' INTO TABLE loaded (n, t) SET who = '$who'"));
        same('5000050000', run($c, 'SELECT SUM(n) FROM loaded WHERE who = ?', [$who])->fetchColumn());
    },
    'compressed' => function () {
        $c = pdo([PDO::MYSQL_ATTR_COMPRESS => true]);
        same(str_repeat('x', 100000), run($c, "SELECT REPEAT(?, 100000)", ['x'])->fetchColumn());
        for ($i = 0; $i < 50; $i++) same($i, run($c, "SELECT $i")->fetchColumn());
    },
    'errors' => function () {
        $c = pdo();
        refused(1146, '42S02', fn() => $c->query('SELECT * FROM missing'));
        refused(1064, '42000', fn() => $c->query('SELEKT'));
        refused(1062, '23000', fn() => $c->exec('INSERT INTO unique_one VALUES (1), (1)'));
        refused(1644, '45000', fn() => $c->exec("SIGNAL SQLSTATE '45000' SET MESSAGE_TEXT = 'own'"));
        same(1, $c->query('SELECT 1')->fetchColumn());
    },
    'stream' => function () {
        $c = pdo([PDO::MYSQL_ATTR_USE_BUFFERED_QUERY => false]);
        $total = 0;
        foreach ($c->query("SELECT seq, REPEAT('s', 500) FROM seq_1_to_50000") as $row) $total += $row[0];
        same(50000 * 50001 / 2, $total);
    },
    'kill' => function () {
        [$c, $other] = [pdo(), pdo()];
        $other->exec('KILL ' . $c->query('SELECT CONNECTION_ID()')->fetchColumn());
        try {
            $c->query('SELECT 1');
            throw new Exception('a killed session answers');
        } catch (PDOException $e) {
            same(true, in_array($e->errorInfo[1], [2006, 2013, 1053]), $e->getMessage());
        }
        same(2, pdo()->query('SELECT 2')->fetchColumn());
    },
];

if ($which === 'vanish') {
    $c = my();
    $r = $c->query("SELECT seq, REPEAT('d', 1000) FROM seq_1_to_5000000", MYSQLI_USE_RESULT);
    $r->fetch_row();
    echo "row\n";
    sleep(60); // until it is killed
    exit(1);
}

$failed = false;
foreach (['mysqli' => $mysqli, 'pdo' => $pdo][$which] as $name => $f) {
    try {
        $f();
        echo "ok $name\n";
    } catch (Throwable $e) {
        $failed = true;
        echo "FAIL $name: ", get_class($e), ' ', $e->getMessage(), ' at line ', $e->getLine(), "\n", $e->getTraceAsString(), "\n";
    }
}
exit($failed ? 1 : 0);
