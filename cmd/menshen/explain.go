package main

import (
	"fmt"
	"net/url"
	"strings"

	"github.com/spf13/cobra"

	"github.com/menshen-gateway/menshen/internal/httpdoor"
	"github.com/menshen-gateway/menshen/internal/snapshot"
)

func explainCommand() *cobra.Command {
	c := &cobra.Command{
		Use:   "explain",
		Short: "Tell what the gateway would do, and why",
		Args:  cobra.ArbitraryArgs,
		RunE:  group,
	}
	c.FParseErrWhitelist.UnknownFlags = true
	c.SuggestionsMinimumDistance = 2
	c.AddCommand(explainHTTPCommand())
	return c
}

func explainHTTPCommand() *cobra.Command {
	var path, output, listener string
	var headers []string
	c := &cobra.Command{
		Use:   "http METHOD URL -c FILE|DIR",
		Short: "The route that wins for a request and why, its target and endpoints",
		Example: `  menshen explain http GET http://api.example.com/users/1 -c menshen.yaml
  menshen explain http POST /orders -H 'X-Version: 2' -c menshen.yaml`,
		Args: two,
		RunE: func(c *cobra.Command, args []string) error {
			if err := checkOutput(output); err != nil {
				return err
			}
			q, err := question(args[0], args[1], headers)
			if err != nil {
				return err
			}
			q.Listener = listener
			var e *httpdoor.Explanation
			cfg, err := load(path)
			if err != nil {
				return err
			}
			if _, err = compile(path, func(s *snapshot.Snapshot) (err error) {
				e, err = s.HTTP.Explain(q, cfg)
				return err
			}); err != nil {
				return err
			}
			if output == "json" {
				return printJSON(c.OutOrStdout(), e)
			}
			_, err = fmt.Fprint(c.OutOrStdout(), e)
			return err
		},
	}
	configFlag(c, &path)
	outputFlag(c, &output)
	c.Flags().StringVar(&listener, "listener", "", "name of the listener; the first one with the URL's port and scheme when absent")
	c.Flags().StringArrayVarP(&headers, "header", "H", nil, "request header 'Name: value'; may be repeated")
	return c
}

// question reads a request from the command line. A URL without a host asks for any host.
func question(method, target string, headers []string) (httpdoor.Question, error) {
	q := httpdoor.Question{Method: method, Host: "localhost"}
	rest := target
	if scheme, after, ok := strings.Cut(target, "://"); ok {
		if scheme != "http" && scheme != "https" {
			return q, fmt.Errorf("%q is not an http URL", target)
		}
		q.Secure = scheme == "https"
		if q.Host, rest, ok = strings.Cut(after, "/"); ok || rest != "" {
			rest = "/" + rest
		}
		if host, query, ok := strings.Cut(q.Host, "?"); ok { // http://host?query
			q.Host, rest = host, "/?"+query
		}
		if rest == "" {
			rest = "/"
		}
	} else if !strings.HasPrefix(target, "/") && target != "*" {
		return q, fmt.Errorf("%q is neither a URL nor a path (accepted: http://host/path or /path)", target)
	}
	rest, _, _ = strings.Cut(rest, "#")
	q.Path, q.Query, q.HasQuery = strings.Cut(rest, "?")
	if _, err := url.ParseRequestURI("http://" + q.Host + "/"); err != nil || q.Host == "" {
		return q, fmt.Errorf("%q has no valid host", target)
	}
	if _, port, ok := strings.Cut(q.Host[strings.LastIndexByte(q.Host, ']')+1:], ":"); ok { // behind the brackets of an IPv6 address
		q.Port = port
	}
	for _, h := range headers {
		name, value, ok := strings.Cut(h, ":")
		if !ok {
			return q, fmt.Errorf("header %q has no colon (accepted: 'Name: value')", h)
		}
		name, value = strings.TrimSpace(name), strings.TrimSpace(value)
		if strings.EqualFold(name, "Host") {
			q.Host = value
			continue
		}
		q.Headers = append(q.Headers, [2]string{name, value})
	}
	return q, nil
}
