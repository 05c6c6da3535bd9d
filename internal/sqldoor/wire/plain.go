package wire

import (
	"io"
	"net"
)

// Plain is the connection under the frames, for what comes before the first of them. Nothing may have been read yet.
func (c *Conn) Plain() io.ReadWriter { return c.poll }

// LocalAddr is the address at our end.
func (c *Conn) LocalAddr() net.Addr { return c.poll.LocalAddr() }
