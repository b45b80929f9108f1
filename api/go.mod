module github.com/carillon-rt/carillon/api

go 1.26.0

require github.com/carillon-rt/carillon/proto v0.0.0
require github.com/carillon-rt/carillon/kit v0.0.0

replace github.com/carillon-rt/carillon/proto => ../proto
replace github.com/carillon-rt/carillon/kit => ../kit
