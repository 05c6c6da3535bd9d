package wire

import "net"

// Plain is the connection under the frames, for what comes before the first of them, and for its addresses. Nothing may have been read yet.
func (c *Conn) Plain() net.Conn { return c.poll }
