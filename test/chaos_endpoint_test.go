package test

import (
	"bufio"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/menshen-gateway/menshen/internal/testenv"
)

// This file has the endpoints of the chaos test: nginx, and a server of our own that frames its answers in every way there
// is and keeps a journal of what it executed. The server is this test binary run again, so that it can be killed and stopped.

// chaosEndpointVariable holds "NAME ADDRESS JOURNAL" in the environment of a process that is to be such a server.
const chaosEndpointVariable = "MENSHEN_CHAOS_ENDPOINT"

// chaosSick ends the name of a file: while it lies beside the journal, the server answers everything with 503.
const chaosSick = ".sick"

// chaosSizes are the lengths of bodies: the token of a request (16 bytes), repeated.
var chaosSizes = []int{16, 4 << 10, 64 << 10, 1 << 20}

// chaosNginx is the part of nginx's configuration that answers like chaosServer.
func chaosNginx() string {
	var b strings.Builder
	b.WriteString("client_body_buffer_size 64k; set $a \"$arg_token\";\n")
	for i, size := range chaosSizes[1:] {
		name := string(rune('b' + i))
		fmt.Fprintf(&b, "set $%s \"\";\n", name)
		fmt.Fprintf(&b, "location ~ ^/(one|all)/%d$ { add_header X-Token $arg_token; add_header X-Backend n0;", size)
		from := "a"
		for j, s := range chaosSizes[1 : i+2] {
			to := string(rune('b' + j))
			fmt.Fprintf(&b, " set $%s \"%s\";", to, strings.Repeat("${"+from+"}", s/chaosSizes[j]))
			from = to
		}
		fmt.Fprintf(&b, " return 200 $%s; }\n", from)
	}
	b.WriteString("location ~ ^/(one|all)/16$ { add_header X-Token $arg_token; add_header X-Backend n0; return 200 $a; }\n")
	return b.String()
}

// startChaosServer starts a server at an address, and waits until it answers.
func startChaosServer(t testing.TB, name, address, journal string) *testenv.Process {
	t.Helper()
	program, err := os.Executable()
	must(t, err)
	cmd := exec.Command(program)
	cmd.Env = append(os.Environ(), chaosEndpointVariable+"="+name+" "+address+" "+journal, "GORACE=atexit_sleep_ms=0")
	p := testenv.Start(t, cmd)
	testenv.Eventually(t, deadline, func() error {
		c, err := net.Dial("tcp", address)
		if err != nil {
			return err
		}
		return c.Close()
	})
	return p
}

// chaosServer serves until it is killed.
type chaosServer struct {
	name    string
	journal *os.File
}

// serveChaos is the main function of the process.
func serveChaos(arguments string) int {
	words := strings.Fields(arguments)
	journal, err := os.OpenFile(words[2], os.O_APPEND|os.O_CREATE|os.O_WRONLY, 0o600)
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	ln, err := net.Listen("tcp", words[1])
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	s := &chaosServer{words[0], journal}
	for {
		c, err := ln.Accept()
		if err != nil {
			fmt.Fprintln(os.Stderr, err)
			return 1
		}
		go s.serve(c) // ends with the connection
	}
}

// note writes a line to the journal. It is in the kernel when note returns, and outlives a kill.
func (s *chaosServer) note(format string, args ...any) { fmt.Fprintf(s.journal, format+"\n", args...) }

func (s *chaosServer) serve(c net.Conn) {
	defer c.Close()
	r := bufio.NewReader(c)
	for {
		request, err := http.ReadRequest(r)
		if err != nil {
			return
		}
		if request.Header.Get("Expect") != "" {
			_, _ = io.WriteString(c, "HTTP/1.1 100 Continue\r\n\r\n")
		}
		query := request.URL.Query()
		token := query.Get("token")
		if request.Header.Get("Upgrade") != "" {
			fmt.Fprintf(c, "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\nX-Backend: %s\r\nX-Token: %s\r\n\r\n", s.name, token)
			if _, err := io.Copy(c, r); err == nil { // the client has closed its half
				_, _ = io.WriteString(c, "bye")
			}
			return
		}
		body, err := io.ReadAll(request.Body)
		if err != nil { // not whole: nothing is executed
			return
		}
		size := len(token)
		if last := request.URL.Path[strings.LastIndexByte(request.URL.Path, '/')+1:]; last != "" && last[0] >= '0' && last[0] <= '9' {
			size, _ = strconv.Atoi(last)
		}
		if _, err := os.Stat(s.journal.Name() + chaosSick); err == nil {
			if _, err := fmt.Fprintf(c, "HTTP/1.1 503 Service Unavailable\r\nX-Backend: %s\r\nX-Token: %s\r\nContent-Length: 0\r\n\r\n", s.name, token); err != nil {
				return
			}
			continue
		}
		if request.Method == "POST" || request.Method == "PUT" {
			if string(body) != chaosText(token, len(body)) {
				s.note("BAD %s %s: a body of %d bytes that is not its own", request.Method, token, len(body))
			}
			s.note("%s %s %d", request.Method, token, len(body))
		}
		if think, _ := strconv.Atoi(query.Get("think")); think > 0 {
			time.Sleep(time.Duration(think) * time.Millisecond) // executed and not answered: what a fault meets best
		}
		if request.Method == "HEAD" {
			if _, err := fmt.Fprintf(c, "HTTP/1.1 200 OK\r\nX-Backend: %s\r\nX-Token: %s\r\nContent-Length: %d\r\n\r\n", s.name, token, size); err != nil {
				return
			}
			continue
		}
		if !s.answer(c, query.Get("f"), token, size) {
			return
		}
	}
}

// answer sends a response in one of several framings and says whether the connection goes on.
func (s *chaosServer) answer(c net.Conn, framing, token string, size int) bool {
	head := "HTTP/1.1 200 OK\r\nX-Backend: " + s.name + "\r\nX-Token: " + token + "\r\nContent-Type: text/plain\r\n"
	body := chaosText(token, size)
	var err error
	switch framing {
	case "chunked":
		if _, err = io.WriteString(c, head+"Transfer-Encoding: chunked\r\n\r\n"); err != nil {
			return false
		}
		for len(body) > 0 {
			n := min(len(body), 10000)
			if _, err = fmt.Fprintf(c, "%x\r\n%s\r\n", n, body[:n]); err != nil {
				return false
			}
			body = body[n:]
		}
		_, err = io.WriteString(c, "0\r\nX-Trailer: t\r\n\r\n")
	case "last": // the answer says that the connection ends
		_, _ = io.WriteString(c, head+fmt.Sprintf("Connection: close\r\nContent-Length: %d\r\n\r\n%s", size, body))
		return false
	case "close": // the end of the connection is the end of the body: all in one write, for nobody can tell a part from the whole
		if len(body) <= 4096 {
			_, _ = io.WriteString(c, head+"Connection: close\r\n\r\n"+body)
			return false
		}
		fallthrough
	case "early":
		_, err = io.WriteString(c, "HTTP/1.1 103 Early Hints\r\nLink: </a>\r\n\r\n"+head+fmt.Sprintf("Content-Length: %d\r\n\r\n%s", size, body))
	case "slow":
		if _, err = io.WriteString(c, head+fmt.Sprintf("Content-Length: %d\r\n\r\n", size)); err != nil {
			return false
		}
		for i := range 4 {
			time.Sleep(20 * time.Millisecond) // an endpoint that takes its time is what is asked for
			if _, err = io.WriteString(c, body[i*size/4:(i+1)*size/4]); err != nil {
				return false
			}
		}
	default:
		_, err = io.WriteString(c, head+fmt.Sprintf("Content-Length: %d\r\n\r\n%s", size, body))
	}
	return err == nil
}

// chaosText is the token over and over, size bytes of it.
func chaosText(token string, size int) string {
	if token == "" {
		return strings.Repeat("?", size)
	}
	return strings.Repeat(token, size/len(token)+1)[:size]
}
