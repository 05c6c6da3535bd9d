//go:build linux

package bench

import (
	"bufio"
	"context"
	"database/sql/driver"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"net"
	"os"
	"slices"
	"time"

	"github.com/go-sql-driver/mysql"
	"golang.org/x/sys/unix"
)

// sqlReport is what the client prints when it is done.
type sqlReport struct {
	Statements int
	Elapsed    time.Duration
	P50, P99   time.Duration
}

// statement is what the client sends; the digits at the end change from one to the next. The ids of the MariaDB table are 1000000 to 1009999.
const statement = "SELECT c FROM t WHERE id = 1000000"

// runSQLClient is a closed loop over many connections: each sends its next statement as soon as the answer to the last one is whole. The driver signs in,
// then its sockets are taken over, so that the loop costs no more than the system calls. It says "ready" when all connections stand, starts at the next line of
// its standard input, and prints a sqlReport.
func runSQLClient(arguments []string) error {
	set := flag.NewFlagSet("sql-client", flag.ContinueOnError)
	dsn := set.String("dsn", "", "data source name")
	connections := set.Int("connections", 1, "connections")
	length := set.Duration("length", time.Second, "how long")
	if err := set.Parse(arguments); err != nil {
		return err
	}
	l, err := newLoop()
	if err != nil {
		return err
	}
	var fds []int
	for range *connections {
		fd, err := signIn(*dsn)
		if err != nil {
			return err
		}
		fds = append(fds, fd)
	}
	query := []byte(packet(0, "\x03"+statement))
	size, err := learn(fds[0], query)
	if err != nil {
		return err
	}
	fmt.Println("ready")
	if _, err := bufio.NewReader(os.Stdin).ReadString('\n'); err != nil {
		return err
	}
	var latencies []int64 // nanoseconds
	start := time.Now()
	seed := uint32(1)
	next := func(p *peer) bool {
		seed = seed*1664525 + 1013904223
		q := slices.Clone(query)
		for i, n := len(q)-1, seed>>16; i >= len(q)-4; i, n = i-1, n/10 {
			q[i] = byte('0' + n%10)
		}
		p.left, p.sent = size, int64(time.Since(start))
		return l.send(p, q)
	}
	l.input = func(p *peer, data []byte) bool {
		if p.left == size && len(data) >= 5 && data[4] != 1 {
			l.failed = fmt.Errorf("not a result set: %q", data)
			return false
		}
		p.left -= len(data)
		if p.left > 0 {
			return true
		}
		if p.left < 0 {
			l.failed = fmt.Errorf("answer is %d bytes longer than the first one", -p.left)
			return false
		}
		latencies = append(latencies, int64(time.Since(start))-p.sent)
		return next(p)
	}
	for _, fd := range fds {
		p, err := l.add(fd)
		if err != nil {
			return err
		}
		if !next(p) {
			return errors.New("connection lost at the first statement")
		}
	}
	if err := l.run(nil, func() bool { return time.Since(start) >= *length }); err != nil {
		return err
	}
	elapsed := time.Since(start)
	if len(l.peers) != *connections {
		return fmt.Errorf("%d of %d connections were closed", *connections-len(l.peers), *connections)
	}
	slices.Sort(latencies)
	at := func(share float64) time.Duration {
		if len(latencies) == 0 {
			return 0
		}
		return time.Duration(latencies[int(share*float64(len(latencies)-1))])
	}
	return json.NewEncoder(os.Stdout).Encode(sqlReport{len(latencies), elapsed, at(0.5), at(0.99)})
}

// held keeps the driver's side of the connections alive, so that no finalizer says goodbye.
var held []driver.Conn

// signIn connects and returns a descriptor of its own for the socket.
func signIn(dsn string) (int, error) {
	c, err := mysql.ParseDSN(dsn)
	if err != nil {
		return 0, err
	}
	var tcp *net.TCPConn
	c.DialFunc = func(ctx context.Context, network, address string) (net.Conn, error) {
		conn, err := new(net.Dialer).DialContext(ctx, network, address)
		if err == nil {
			tcp = conn.(*net.TCPConn)
		}
		return conn, err
	}
	connector, err := mysql.NewConnector(c)
	if err != nil {
		return 0, err
	}
	conn, err := connector.Connect(context.Background())
	if err != nil {
		return 0, err
	}
	held = append(held, conn)
	raw, err := tcp.SyscallConn()
	if err != nil {
		return 0, err
	}
	fd, failed := -1, error(nil)
	if err := raw.Control(func(original uintptr) { fd, failed = unix.Dup(int(original)) }); err != nil {
		return 0, err
	}
	if failed != nil {
		return 0, failed
	}
	// Closing the original takes it out of the runtime's own poller, which would wake up for each answer.
	return fd, tcp.Close()
}

// learn sends one statement and returns the length of its answer, which all others share: ids and values have a fixed width.
func learn(fd int, query []byte) (int, error) {
	if _, err := unix.Write(fd, query); err != nil {
		return 0, err
	}
	size := 0
	buffer := make([]byte, 64<<10)
	for wait := 10_000; ; wait = 200 { // milliseconds; the rest of the answer follows at once
		n, err := unix.Poll([]unix.PollFd{{Fd: int32(fd), Events: unix.POLLIN}}, wait)
		if err == unix.EINTR {
			continue
		}
		if err != nil {
			return 0, err
		}
		if n == 0 {
			if size == 0 {
				return 0, errors.New("no answer to the first statement")
			}
			return size, nil
		}
		if n, err = unix.Read(fd, buffer); err != nil {
			return 0, err
		}
		if n == 0 || size == 0 && n >= 5 && buffer[4] != 1 {
			return 0, fmt.Errorf("the first statement failed: %q", buffer[:n])
		}
		size += n
	}
}
