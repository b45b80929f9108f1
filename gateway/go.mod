module github.com/carillon-rt/carillon/gateway

go 1.26.0

require github.com/carillon-rt/carillon/proto v0.0.0

require github.com/carillon-rt/carillon/kit v0.0.0

require pgregory.net/rapid v1.3.0

require (
	github.com/gobwas/httphead v0.1.0 // indirect
	github.com/gobwas/ws v1.5.0 // indirect
	golang.org/x/sys v0.49.0 // indirect
)

replace github.com/carillon-rt/carillon/proto => ../proto

replace github.com/carillon-rt/carillon/kit => ../kit
