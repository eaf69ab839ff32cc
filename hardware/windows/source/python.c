/* python.exe: what python3xx.dll does with the command line. */
#include <wchar.h>

int Py_Main(int, wchar_t **);

int wmain(int count, wchar_t **words) { return Py_Main(count, words); }
