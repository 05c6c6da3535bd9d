//go:build linux

package bench

import (
	"bufio"
	"crypto/tls"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"slices"
	"strings"
	"sync"
	"time"
)

// cipher is what all subjects and clients use: the one that most clients and servers with AES in hardware agree on, where the three differ by default.
const (
	cipher     = tls.TLS_AES_128_GCM_SHA256
	cipherName = "TLS_AES_128_GCM_SHA256"
)

// tlsReport is what the TLS client prints.
type tlsReport struct {
	Handshakes int
	Resumed    int
	Elapsed    time.Duration
	P50, P99   time.Duration // of a handshake
}

// clientTLS is TLS 1.3 with the key exchange X25519, which all subjects can. Nobody's certificate is verified; the signature in the handshake is.
func clientTLS() *tls.Config {
	return &tls.Config{MinVersion: tls.VersionTLS13, InsecureSkipVerify: true, ServerName: "localhost", CurvePreferences: []tls.CurveID{tls.X25519}}
}

// runTLSClient opens connections, asks once on each, and closes them, for a while; or it opens some and holds them until its input ends.
func runTLSClient(arguments []string) error {
	set := flag.NewFlagSet("tls-client", flag.ContinueOnError)
	address := set.String("address", "", "host:port of the subject")
	resume := set.Bool("resume", false, "resume sessions")
	length := set.Duration("length", time.Second, "how long")
	hold := set.Bool("hold", false, "hold connections; each line of the input is a number of them")
	if err := set.Parse(arguments); err != nil {
		return err
	}
	if *hold {
		return holdTLS(*address)
	}
	const workers = 8
	var group sync.WaitGroup
	var failed [workers]error
	var took [workers][]time.Duration
	var resumed [workers]int
	began := time.Now()
	for i := range workers {
		group.Go(func() {
			config := clientTLS()
			if *resume {
				config.ClientSessionCache = tls.NewLRUClientSessionCache(4)
			}
			for failed[i] == nil && time.Since(began) < *length {
				var c *tls.Conn
				start := time.Now()
				if c, failed[i] = askTLS(*address, config); failed[i] == nil {
					took[i] = append(took[i], time.Since(start))
					if c.ConnectionState().DidResume {
						resumed[i]++
					}
					c.Close()
				}
			}
		})
	}
	group.Wait()
	report := tlsReport{Elapsed: time.Since(began)}
	var all []time.Duration
	for i := range workers {
		all = append(all, took[i]...)
		report.Resumed += resumed[i]
	}
	if err := errors.Join(failed[:]...); err != nil {
		return err
	}
	slices.Sort(all)
	report.Handshakes, report.P50, report.P99 = len(all), all[len(all)/2], all[(len(all)-1)*99/100]
	return json.NewEncoder(os.Stdout).Encode(report)
}

// askTLS makes one connection, and gets one answer on it: tickets come with it.
func askTLS(address string, config *tls.Config) (*tls.Conn, error) {
	tcp, err := net.Dial("tcp", address)
	if err != nil {
		return nil, err
	}
	c := tls.Client(tcp, config)
	if err := request(c, address); err != nil {
		c.Close()
		return nil, err
	}
	return c, nil
}

func request(c net.Conn, address string) error {
	if _, err := fmt.Fprintf(c, "GET /100 HTTP/1.1\r\nHost: %s\r\n\r\n", address); err != nil {
		return err
	}
	response, err := http.ReadResponse(bufio.NewReader(c), nil)
	if err != nil {
		return err
	}
	if _, err := io.Copy(io.Discard, response.Body); err != nil || response.StatusCode != 200 {
		return fmt.Errorf("answer: %s, %w", response.Status, err)
	}
	return nil
}

func holdTLS(address string) error {
	config := clientTLS()
	var held []*tls.Conn
	input := bufio.NewScanner(os.Stdin)
	for input.Scan() {
		var n int
		if _, err := fmt.Sscan(strings.TrimSpace(input.Text()), &n); err != nil {
			return err
		}
		for len(held) < n {
			c, err := askTLS(address, config)
			if err != nil {
				return err
			}
			held = append(held, c)
		}
		fmt.Println(len(held))
	}
	return input.Err()
}
