package tunnel

import (
	"io"
	"net"
	"strconv"
	"syscall"
	"testing"
	"time"

	"github.com/menshen-gateway/menshen/internal/poll"
)

func cpu() time.Duration {
	var u syscall.Rusage
	_ = syscall.Getrusage(syscall.RUSAGE_SELF, &u)
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}

// Is the own loop (buffers only while data flows, progress of blocked writes) as cheap as io.Copy, which splices inside
// the kernel? cpu-ns/op is for client, relay and server together.
func BenchmarkRelay(b *testing.B) {
	relayers := map[string]func(x, y net.Conn){
		"adopted": func(x, y net.Conn) { relay(poll.Adopt(x), poll.Adopt(y), time.Minute) },
		"waiting": func(x, y net.Conn) { relay(poll.New(x), poll.New(y), time.Minute) },
		"splice": func(x, y net.Conn) {
			go func() { _, _ = io.Copy(x, y); _ = x.(*net.TCPConn).CloseWrite() }()
			_, _ = io.Copy(y, x)
			_ = y.(*net.TCPConn).CloseWrite()
		},
	}
	for name, relay := range relayers {
		for _, size := range []int{64, 4 << 10, 64 << 10, 1 << 20} {
			b.Run(name+"/pingpong/"+strconv.Itoa(size), func(b *testing.B) {
				client, x := pair(b)
				y, server := pair(b)
				go relay(x, y)
				go io.Copy(struct{ io.Writer }{server}, struct{ io.Reader }{server})
				buf, got := make([]byte, size), make([]byte, size)
				b.SetBytes(int64(size))
				start := cpu()
				for b.Loop() {
					go client.Write(buf)
					io.ReadFull(client, got)
				}
				b.ReportMetric(float64(cpu()-start)/float64(b.N), "cpu-ns/op")
				client.Close()
				server.Close()
			})
		}
		b.Run(name+"/stream", func(b *testing.B) {
			client, x := pair(b)
			y, server := pair(b)
			go relay(x, y)
			go io.Copy(struct{ io.Writer }{io.Discard}, struct{ io.Reader }{server})
			buf := make([]byte, 1<<20)
			b.SetBytes(1 << 20)
			start := cpu()
			for b.Loop() {
				client.Write(buf)
			}
			b.ReportMetric(float64(cpu()-start)/float64(b.N), "cpu-ns/op")
			client.Close()
			server.Close()
		})
	}
}
