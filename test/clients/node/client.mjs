// mysql2 through the gateway; see ../clients.go.
import assert from 'node:assert/strict'
import { createHash } from 'node:crypto'
import { once } from 'node:events'
import { createReadStream, readFileSync } from 'node:fs'
import mysql from 'mysql2/promise'

const { MENSHEN_HOST: host, MENSHEN_PORT: port, MENSHEN_CA: ca, MENSHEN_FILE: file } = process.env
const who = 'node'
let failed = false

const connect = more => mysql.createConnection({ host, port: Number(port), user: 'app', password: 'apple', database: 'shop', ...more })

// using gives a connection for as long as f runs.
async function using(more, f) {
  const c = await connect(more)
  c.connection.on('error', () => {}) // fatal errors come with the statement, too
  try { return await f(c) } finally { c.destroy() }
}
const rows = async (c, sql, args) => (await c.query({ sql, rowsAsArray: true }, args))[0]
const prepared = async (c, sql, args) => (await c.execute({ sql, rowsAsArray: true }, args))[0]
const refused = (code, state, f) => assert.rejects(f, e => { assert.deepEqual([e.errno, e.sqlState], [code, state], e.message); return true })

const checks = {
  async connect_sha2() {
    await using({}, async c => assert.deepEqual(await rows(c, 'SELECT 1'), [[1]]))
  },
  async connect_native() {
    // A plugin of one's own for what the server announces makes the client begin with the old one.
    const unused = () => { throw new Error('asked for caching_sha2_password') }
    await using({ authPlugins: { caching_sha2_password: unused } }, async c => assert.deepEqual(await rows(c, 'SELECT 1'), [[1]]))
  },
  async connect_tls() {
    await using({ ssl: { ca: readFileSync(ca), servername: 'localhost' } }, async c => {
      assert.deepEqual(await rows(c, 'SELECT 1'), [[1]])
      assert.equal(c.connection.stream.encrypted, true)
    })
  },
  async wrong_password() {
    await refused(1045, '28000', () => connect({ password: 'wrong' }))
    await refused(1045, '28000', () => connect({ user: 'nobody' }))
    await refused(1049, '42000', () => connect({ database: 'nowhere' }))
  },
  async types() {
    const values = [-128, 65535, 2147483647, '-9223372036854775808', '18446744073709551615', 1.5, -2.25e100, '12345678901234567890.0123456789',
      '2024-02-29', '-800:01:00.000005', '9999-12-31 23:59:59.999999', 'a\'b"c\\d\0e\n🐘', Buffer.from([...Array(256).keys()]), 'x,z']
    const columns = 'ti, us, i, bi, ub, f, d, de, da, tm, dt, vc, bl, st'
    const text = { supportBigNumbers: true, bigNumberStrings: true, dateStrings: true }
    await using(text, async c => {
      await c.query('DELETE FROM kinds WHERE who = ?', [who])
      await c.execute(`INSERT INTO kinds (who, ${columns}) VALUES (?${', ?'.repeat(values.length)})`, [who, ...values])
      const want = values.map(v => typeof v === 'number' || Buffer.isBuffer(v) ? v : String(v))
      for (const ask of [rows, prepared]) assert.deepEqual(await ask(c, `SELECT ${columns} FROM kinds WHERE who = ?`, [who]), [want])
      await c.execute('DELETE FROM kinds WHERE who = ?', [who])
      await c.execute(`INSERT INTO kinds (who, ${columns}) VALUES (?${', ?'.repeat(values.length)})`, [who, ...values.map(() => null)])
      for (const ask of [rows, prepared]) assert.deepEqual(await ask(c, `SELECT ${columns} FROM kinds WHERE who = ?`, [who]), [values.map(() => null)])
      // The same statement many times, with others between, and closed.
      for (let i = 0; i < 50; i++) {
        const s = await c.prepare(`SELECT ? + ${i}`)
        const [[row]] = await s.execute([1])
        assert.equal(Number(Object.values(row)[0]), 1 + i)
        if (i % 2) await s.close()
      }
      await refused(1146, '42S02', () => c.execute('SELECT * FROM missing'))
    })
    await using({ timezone: 'Z' }, async c => {
      const at = new Date('2024-02-29T12:34:56.789Z')
      assert.deepEqual(await prepared(c, 'SELECT CAST(? AS DATETIME(3)), ?', [at, 'x']), [[at, 'x']])
    })
  },
  async blob() {
    const data = Buffer.alloc(17 << 20, createHash('sha256').update('x').digest())
    await using({}, async c => {
      for (const way of ['query', 'execute']) {
        await c[way]('REPLACE INTO blobs VALUES (?, ?)', [who, data])
        const [[row]] = await c[way]('SELECT b FROM blobs WHERE who = ?', [who])
        assert.ok(data.equals(row.b), way)
      }
    })
  },
  async transaction() {
    await using({}, c => using({}, async other => {
      const count = async () => (await rows(other, 'SELECT COUNT(*) FROM ledger WHERE who = ?', [who]))[0][0]
      await other.query('DELETE FROM ledger WHERE who = ?', [who])
      await c.beginTransaction()
      await c.execute('INSERT INTO ledger VALUES (?, 1)', [who])
      assert.equal(await count(), 0)
      await c.rollback()
      assert.equal(await count(), 0)
      await c.beginTransaction()
      await c.execute('INSERT INTO ledger VALUES (?, 2)', [who])
      await c.commit()
      assert.equal(await count(), 1)
    }))
  },
  async results() {
    await using({ multipleStatements: true }, async c => {
      const [all] = await c.query({ sql: 'SELECT 1; DO 2; SELECT 3, 4', rowsAsArray: true })
      assert.deepEqual([all[0], all[1].affectedRows, all[2]], [[[1]], 0, [[3, 4]]])
      await refused(1146, '42S02', () => c.query('SELECT 1; SELECT * FROM missing; SELECT 3'))
      assert.deepEqual(await rows(c, 'SELECT 5'), [[5]])
    })
    await using({}, c => refused(1064, '42000', () => c.query('SELECT 1; SELECT 2')))
  },
  async procedure() {
    await using({}, async c => {
      const [all] = await c.query({ sql: 'CALL both_ways(20, @o)', rowsAsArray: true })
      assert.deepEqual([all[0], all[1]], [[[20]], [[22]]])
      assert.deepEqual(await rows(c, 'SELECT @o'), [[21]])
      const [two] = await c.execute({ sql: 'CALL both_ways(?, @o)', rowsAsArray: true }, [30])
      assert.deepEqual([two[0], two[1]], [[[30]], [[32]]])
    })
  },
  async charsets() {
    for (const [charset, text] of [['utf8mb4_general_ci', 'naïve 🐘 漢字'], ['latin1_swedish_ci', 'naïve ÿ'], ['gbk_chinese_ci', "漢字誠\\縗'運\\"]]) {
      await using({ charset }, async c => {
        await c.execute('REPLACE INTO texts VALUES (?, ?)', [who, text])
        assert.deepEqual(await prepared(c, 'SELECT t FROM texts WHERE who = ?', [who]), [[text]], charset)
        assert.deepEqual(await rows(c, 'SELECT t, @@collation_connection FROM texts WHERE who = ?', [who]), [[text, charset]], charset)
      })
      await using({}, async c => assert.deepEqual(await rows(c, 'SELECT t FROM texts WHERE who = ?', [who]), [[text]], charset))
    }
  },
  async load_data() {
    await using({}, async c => {
      await c.query('DELETE FROM loaded WHERE who = ?', [who])
      await c.query({ sql: `LOAD DATA LOCAL INFILE 'mine' INTO TABLE loaded (n, t) SET who = '${who}'`, infileStreamFactory: () => createReadStream(file) })
      assert.deepEqual(await rows(c, 'SELECT COUNT(*), SUM(n), MAX(LENGTH(t)) FROM loaded WHERE who = ?', [who]), [[100000, '5000050000', 90]])
      // Without a stream the client sends nothing, and says so.
      await assert.rejects(() => c.query("LOAD DATA LOCAL INFILE 'mine' INTO TABLE loaded (n, t)"))
    })
  },
  async compressed() {
    const data = Buffer.alloc(17 << 20, createHash('sha256').update('y').digest())
    await using({ compress: true }, async c => {
      await c.query('REPLACE INTO blobs VALUES (?, ?)', [who, data])
      const [[row]] = await c.execute('SELECT b FROM blobs WHERE who = ?', [who])
      assert.ok(data.equals(row.b))
      for (let i = 0; i < 50; i++) assert.deepEqual(await prepared(c, 'SELECT ?', [i]), [[i]])
      await refused(1146, '42S02', () => c.query('SELECT * FROM missing'))
    })
  },
  async disconnect() {
    const c = await connect()
    c.connection.on('error', () => {})
    const query = c.connection.query("SELECT seq, REPEAT('d', 1000) FROM seq_1_to_5000000")
    query.on('error', () => {})
    await once(query, 'result')
    c.connection.stream.resetAndDestroy()
  },
  async errors() {
    await using({}, async c => {
      await refused(1146, '42S02', () => c.query('SELECT * FROM missing'))
      await refused(1064, '42000', () => c.query('SELEKT'))
      await refused(1062, '23000', () => c.query('INSERT INTO unique_one VALUES (1), (1)'))
      await refused(1644, '45000', () => c.query("SIGNAL SQLSTATE '45000' SET MESSAGE_TEXT = 'own'"))
      assert.deepEqual(await rows(c, 'SELECT 1'), [[1]])
    })
  },
  async stream() {
    await using({}, async c => {
      let total = 0
      for await (const row of c.connection.query("SELECT seq, REPEAT('s', 500) AS t FROM seq_1_to_50000").stream()) {
        total += row.seq
        if (row.seq % 20000 === 0) await new Promise(resolve => setTimeout(resolve, 20)) // a slow reader: the stream is paused
      }
      assert.equal(total, 50000 * 50001 / 2)
      assert.deepEqual(await rows(c, 'SELECT 1'), [[1]])
    })
  },
  async pipelined() {
    await using({}, async c => {
      // mysql2 queues these itself; all are written before the first answer has come.
      const all = await Promise.all(Array.from({ length: 100 }, (_, i) => i % 2 ? prepared(c, 'SELECT ?', [i]) : rows(c, `SELECT ${i}`)))
      assert.deepEqual(all.map(r => r[0][0]), Array.from({ length: 100 }, (_, i) => i))
    })
  },
  async kill() {
    const pool = mysql.createPool({ host, port: Number(port), user: 'app', password: 'apple', database: 'shop', connectionLimit: 1 })
    try {
      const [[{ id }]] = await pool.query('SELECT CONNECTION_ID() AS id')
      await using({}, other => other.query(`KILL ${id}`))
      // The pool may notice before or with the next statement.
      const again = await pool.query('SELECT 1').catch(e => { assert.match(e.code, /PROTOCOL_CONNECTION_LOST|ECONNRESET|EPIPE|ER_/); return pool.query('SELECT 1') })
      assert.deepEqual(again[0], [{ 1: 1 }])
      const [[now]] = await pool.query('SELECT CONNECTION_ID() AS id')
      assert.notEqual(now.id, id)
    } finally { await pool.end() }
  },
  async change_user() {
    await using({}, async c => {
      await c.query('SET @x = 1')
      await c.query("SET time_zone = '+05:30'")
      await c.changeUser({ user: 'other', password: 'orange', database: 'stock' })
      assert.deepEqual(await rows(c, "SELECT @x, @@time_zone = '+05:30', n FROM stock_one"), [[null, 0, 7]])
      await refused(1045, '28000', () => c.changeUser({ user: 'app', password: 'wrong' }))
    })
  },
  async reset() {
    await using({}, async c => {
      await c.query('SET @x = 1')
      await c.query("SET time_zone = '+05:30'")
      await c.query('CREATE TEMPORARY TABLE tt (i INT)')
      if (c.reset) await c.reset()
      else await new Promise((resolve, reject) => c.connection.reset(e => e ? reject(e) : resolve()))
      assert.deepEqual(await rows(c, "SELECT @x, @@time_zone = '+05:30', DATABASE()"), [[null, 0, 'shop']])
      await refused(1146, '42S02', () => c.query('SELECT * FROM tt'))
    })
  },
}

for (const [name, f] of Object.entries(checks)) {
  try {
    await f()
    console.log('ok', name)
  } catch (e) {
    failed = true
    console.log(`FAIL ${name}: ${e.stack}`)
  }
}
process.exit(failed ? 1 : 0)
