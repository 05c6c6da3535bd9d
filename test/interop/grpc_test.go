package interop

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"strings"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/grpclog"
	grpcinterop "google.golang.org/grpc/interop"
	testpb "google.golang.org/grpc/interop/grpc_testing"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"

	"github.com/menshen-gateway/menshen/internal/testenv"
)

// failure is what a test of grpc-go panics with instead of ending the process.
type failure string

// fatal is a logger of grpc-go that does so.
type fatal struct{ grpclog.LoggerV2 }

func (fatal) Fatal(args ...any)                 { panic(failure(fmt.Sprint(args...))) }
func (fatal) Fatalln(args ...any)               { panic(failure(fmt.Sprintln(args...))) }
func (fatal) Fatalf(format string, args ...any) { panic(failure(fmt.Sprintf(format, args...))) }

func TestMain(m *testing.M) {
	grpclog.SetLoggerV2(fatal{grpclog.NewLoggerV2(io.Discard, io.Discard, io.Discard)})
	os.Exit(m.Run())
}

// serveCalls serves the interoperability service of grpc-go.
func serveCalls(t *testing.T, service testpb.TestServiceServer, options ...grpc.ServerOption) string {
	t.Helper()
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	s := grpc.NewServer(options...)
	testpb.RegisterTestServiceServer(s, service)
	go func() { _ = s.Serve(ln) }() // ends with Stop
	t.Cleanup(s.Stop)
	return ln.Addr().String()
}

func dial(t *testing.T, address string, c credentials.TransportCredentials) *grpc.ClientConn {
	t.Helper()
	cc, err := grpc.NewClient(address, grpc.WithTransportCredentials(c))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { cc.Close() })
	return cc
}

const callConfig = `
listeners:
  plain: {address: "127.0.0.1:0"}
  secure: {address: "127.0.0.1:0", tls: {cert: %q, key: %q}}
services:
  plain: {endpoints: [%q], protocol: grpc}
  secure: {endpoints: [%q], protocol: grpc, tls: {ca: %q}}
routes:
  plain: {match: plain.example/*, service: plain}
  secure: {match: secure.example/*, service: secure}
access_log: none
`

func TestCalls(t *testing.T) {
	t.Parallel()
	c := testenv.NewCertificate(t)
	ours, err := tls.LoadX509KeyPair(c.CertFile, c.KeyFile)
	if err != nil {
		t.Fatal(err)
	}
	addresses := start(t, fmt.Sprintf(callConfig, c.CertFile, c.KeyFile,
		serveCalls(t, grpcinterop.NewTestServer()),
		serveCalls(t, grpcinterop.NewTestServer(), grpc.Creds(credentials.NewServerTLSFromCert(&ours))), c.AuthorityFile))
	for _, from := range []string{"plain", "secure"} {
		for _, to := range []string{"plain", "secure"} {
			t.Run(from+" to "+to, func(t *testing.T) {
				t.Parallel()
				var creds credentials.TransportCredentials = insecure.NewCredentials()
				if from == "secure" {
					creds = renamed{credentials.NewTLS(&tls.Config{RootCAs: c.Pool})} // the authority would be the name to verify
				}
				cc, err := grpc.NewClient(addresses[from], grpc.WithTransportCredentials(creds), grpc.WithAuthority(to+".example"))
				if err != nil {
					t.Fatal(err)
				}
				t.Cleanup(func() { cc.Close() })
				client := testpb.NewTestServiceClient(cc)
				ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
				defer cancel()
				f := func(name string, run func()) {
					defer func() {
						if r := recover(); r != nil {
							t.Errorf("%s: %v", name, r)
						}
					}()
					run()
				}
				f("empty_unary", func() { grpcinterop.DoEmptyUnaryCall(ctx, client) })
				f("large_unary", func() { grpcinterop.DoLargeUnaryCall(ctx, client) })
				f("client_streaming", func() { grpcinterop.DoClientStreaming(ctx, client) })
				f("server_streaming", func() { grpcinterop.DoServerStreaming(ctx, client) })
				f("ping_pong", func() { grpcinterop.DoPingPong(ctx, client) })
				f("empty_stream", func() { grpcinterop.DoEmptyStream(ctx, client) })
				f("timeout_on_sleeping_server", func() { grpcinterop.DoTimeoutOnSleepingServer(ctx, client) })
				f("cancel_after_begin", func() { grpcinterop.DoCancelAfterBegin(ctx, client) })
				f("cancel_after_first_response", func() { grpcinterop.DoCancelAfterFirstResponse(ctx, client) })
				f("custom_metadata", func() { grpcinterop.DoCustomMetadata(ctx, client) })
				f("status_code_and_message", func() { grpcinterop.DoStatusCodeAndMessage(ctx, client) })
				f("special_status_message", func() { grpcinterop.DoSpecialStatusMessage(ctx, client) })
				f("unimplemented_service", func() { grpcinterop.DoUnimplementedService(ctx, testpb.NewUnimplementedServiceClient(cc)) })
				f("unimplemented_method", func() { grpcinterop.DoUnimplementedMethod(ctx, cc) })
			})
		}
	}
}

// renamed are credentials that verify the server under the name in their own settings, whatever the authority.
type renamed struct {
	credentials.TransportCredentials
}

func (r renamed) ClientHandshake(ctx context.Context, _ string, nc net.Conn) (net.Conn, credentials.AuthInfo, error) {
	return r.TransportCredentials.ClientHandshake(ctx, "localhost", nc)
}

func (r renamed) Clone() credentials.TransportCredentials {
	return renamed{r.TransportCredentials.Clone()}
}

// watched is a service that tells what becomes of its calls.
type watched struct {
	testpb.UnimplementedTestServiceServer
	began chan struct{}
	ended chan error
	cut   chan struct{}
}

// UnaryCall lasts until the call is cancelled.
func (s *watched) UnaryCall(ctx context.Context, _ *testpb.SimpleRequest) (*testpb.SimpleResponse, error) {
	s.began <- struct{}{}
	<-ctx.Done()
	s.ended <- ctx.Err()
	return nil, ctx.Err()
}

// FullDuplexCall answers once and then lasts until the call is cancelled.
func (s *watched) FullDuplexCall(stream testpb.TestService_FullDuplexCallServer) error {
	if err := stream.Send(&testpb.StreamingOutputCallResponse{Payload: &testpb.Payload{Body: []byte("hello")}}); err != nil {
		return err
	}
	<-stream.Context().Done()
	s.ended <- stream.Context().Err()
	return stream.Context().Err()
}

// StreamingInputCall ends at once with an error, although the client goes on.
func (s *watched) StreamingInputCall(testpb.TestService_StreamingInputCallServer) error {
	return status.Error(codes.FailedPrecondition, "100% no")
}

// StreamingOutputCall loses its connection half way.
func (s *watched) StreamingOutputCall(_ *testpb.StreamingOutputCallRequest, stream testpb.TestService_StreamingOutputCallServer) error {
	if err := stream.Send(&testpb.StreamingOutputCallResponse{}); err != nil {
		return err
	}
	close(s.cut)
	<-stream.Context().Done()
	return nil
}

func TestCallsThatFail(t *testing.T) {
	t.Parallel()
	service := &watched{began: make(chan struct{}, 10), ended: make(chan error, 10), cut: make(chan struct{})}
	endpoint := serveCalls(t, service)
	breaking := &watched{cut: make(chan struct{})}
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	broken := grpc.NewServer()
	testpb.RegisterTestServiceServer(broken, breaking)
	go func() { _ = broken.Serve(ln) }() // ends with Stop
	t.Cleanup(broken.Stop)
	addresses := start(t, fmt.Sprintf(`
listeners: {web: {address: "127.0.0.1:0"}}
services:
  calls: {endpoints: [%q], protocol: grpc}
  breaking: {endpoints: [%q], protocol: h2c}
  dead: {endpoints: [%q], protocol: grpc}
consumers: {me: {api_keys: [0123456789abcdef0123456789abcdef]}}
routes:
  calls: {match: calls.example/*, service: calls}
  short: {match: short.example/*, service: calls, timeout: 1s}
  breaking: {match: breaking.example/*, service: breaking}
  dead: {match: dead.example/*, service: dead}
  keyed: {match: keyed.example/*, service: calls, policies: [{api_key: {}}]}
  slow: {match: slow.example/*, service: calls, policies: [{rate_limit: 1/h}], timeout: 1s}
access_log: none
`, endpoint, ln.Addr().String(), testenv.FreeAddress(t)))
	client := func(host string) testpb.TestServiceClient {
		cc, err := grpc.NewClient(addresses["web"], grpc.WithTransportCredentials(insecure.NewCredentials()), grpc.WithAuthority(host+".example"))
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { cc.Close() })
		return testpb.NewTestServiceClient(cc)
	}
	f := func(what string, err error, code codes.Code, words string) {
		t.Helper()
		if s := status.Convert(err); s.Code() != code || !strings.Contains(s.Message(), words) {
			t.Errorf("%s: %v: %q, want %v with %q", what, s.Code(), s.Message(), code, words)
		}
	}
	unary := func(ctx context.Context, host string) error {
		_, err := client(host).UnaryCall(ctx, &testpb.SimpleRequest{})
		return err
	}
	began := func(what string) {
		t.Helper()
		select {
		case <-service.began:
		case <-time.After(10 * time.Second):
			t.Errorf("%s: the call does not reach the endpoint", what)
		}
	}
	ended := func(what string) {
		t.Helper()
		select {
		case err := <-service.ended:
			if err == nil {
				t.Errorf("%s: the endpoint's call ended without an error", what)
			}
		case <-time.After(10 * time.Second):
			t.Errorf("%s: the endpoint's call goes on", what)
		}
	}
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()

	// Answers of the gateway's own.
	f("no route", unary(ctx, "nobody"), codes.Unimplemented, "no route")
	f("no endpoint", unary(ctx, "dead"), codes.Unavailable, "")
	f("no key", unary(ctx, "keyed"), codes.Unauthenticated, "")
	f("route timeout", unary(ctx, "short"), codes.DeadlineExceeded, "")
	began("route timeout")
	ended("route timeout")
	_ = unary(ctx, "slow")
	began("slow")
	ended("slow")
	f("rate limit", unary(ctx, "slow"), codes.ResourceExhausted, "")

	// The client's deadline reaches the endpoint, and so does its giving up.
	short, cancelShort := context.WithTimeout(ctx, time.Second)
	f("deadline", unary(short, "calls"), codes.DeadlineExceeded, "")
	cancelShort()
	began("deadline")
	ended("deadline")
	given, giveUp := context.WithCancel(ctx)
	stream, err := client("calls").FullDuplexCall(given)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := stream.Recv(); err != nil { // it comes at once although the call goes on
		t.Fatal(err)
	}
	giveUp()
	ended("cancelled stream")
	given, giveUp = context.WithCancel(ctx)
	go func() {
		began("cancelled call")
		giveUp()
	}()
	f("cancelled call", unary(given, "calls"), codes.Canceled, "")
	ended("cancelled call")

	// A streaming call that exceeds its route's timeout half way.
	stream, err = client("short").FullDuplexCall(ctx)
	if err != nil {
		t.Fatal(err)
	}
	_, err = stream.Recv()
	f("first answer", err, codes.OK, "")
	_, err = stream.Recv()
	f("timeout half way", err, codes.DeadlineExceeded, "")
	ended("timeout half way")

	// The endpoint ends the call before the client does.
	upload, err := client("calls").StreamingInputCall(ctx)
	if err != nil {
		t.Fatal(err)
	}
	for err = nil; err == nil; {
		err = upload.Send(&testpb.StreamingInputCallRequest{Payload: &testpb.Payload{Body: make([]byte, 1000)}})
	}
	if !errors.Is(err, io.EOF) {
		t.Errorf("early end: %v", err)
	}
	_, err = upload.CloseAndRecv()
	f("early end", err, codes.FailedPrecondition, "100% no")

	// The endpoint dies half way.
	download, err := client("breaking").StreamingOutputCall(ctx, &testpb.StreamingOutputCallRequest{})
	if err != nil {
		t.Fatal(err)
	}
	_, err = download.Recv()
	f("before the end", err, codes.OK, "")
	<-breaking.cut
	broken.Stop()
	_, err = download.Recv()
	f("broken half way", err, codes.Unavailable, "closed the connection")
}

// Binary metadata, several values under one name, and large messages arrive as they were sent.
func TestMetadata(t *testing.T) {
	t.Parallel()
	addresses := start(t, fmt.Sprintf(`
listeners: {web: {address: "127.0.0.1:0"}}
services: {calls: {endpoints: [%q], protocol: grpc}}
routes: {calls: {match: /*, service: calls}}
access_log: none
`, serveCalls(t, grpcinterop.NewTestServer(), grpc.MaxRecvMsgSize(32<<20))))
	client := testpb.NewTestServiceClient(dial(t, addresses["web"], insecure.NewCredentials()))
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	binary := string([]byte{0, 1, 2, 255, '\n'})
	ctx = metadata.AppendToOutgoingContext(ctx, "x-grpc-test-echo-trailing-bin", binary, "x-grpc-test-echo-initial", "a, b")
	var header, trailer metadata.MD
	const size = 10 << 20
	reply, err := client.UnaryCall(ctx, &testpb.SimpleRequest{ResponseSize: size, Payload: &testpb.Payload{Body: make([]byte, size)}},
		grpc.Header(&header), grpc.Trailer(&trailer), grpc.MaxCallRecvMsgSize(32<<20))
	if err != nil || len(reply.Payload.Body) != size {
		t.Fatalf("%d bytes, %v", len(reply.GetPayload().GetBody()), err)
	}
	if got := header.Get("x-grpc-test-echo-initial"); len(got) != 1 || got[0] != "a, b" {
		t.Errorf("header: %q", got)
	}
	if got := trailer.Get("x-grpc-test-echo-trailing-bin"); len(got) != 1 || got[0] != binary {
		t.Errorf("trailer: %q", got)
	}
}
