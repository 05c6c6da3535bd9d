package backend

import (
	"errors"
	"strconv"

	"github.com/menshen-gateway/menshen/internal/mysql"
)

// OnlyError says that the statement that has just failed has left its error in the list of messages and nothing else: neither a change that could not be rolled back (1196) nor
// anything else that it came to before. When that is not to be known the answer is no. Any error means that the connection is of no more use.
func (c *Conn) OnlyError(code uint16) (bool, error) {
	var refused *mysql.Error
	count, ok, err := c.Row("SHOW COUNT(*) WARNINGS", 1) // counts what max_error_count leaves out, too
	if err != nil && !errors.As(err, &refused) {
		return false, err
	}
	if err != nil || !ok || string(count[0]) != "1" {
		return false, nil
	}
	t, err := c.table("SHOW WARNINGS")
	if err != nil && !errors.As(err, &refused) {
		return false, err
	}
	return err == nil && len(t.rows) == 1 && len(t.rows[0]) == 3 && string(t.rows[0][1]) == strconv.Itoa(int(code)), nil
}
