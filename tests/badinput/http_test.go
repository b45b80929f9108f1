package badinput

import "fmt"

func apiRequests(status int) string {
	return fmt.Sprintf("carillon_api_requests_total{code=\"%d\",dialect=\"pusher\"}", status)
}
