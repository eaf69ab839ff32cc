/* A DLL that only hands on. */
int DllMainCRTStartup(void *module, unsigned reason, void *reserved)
{
    (void)module; (void)reason; (void)reserved;
    return 1;
}
