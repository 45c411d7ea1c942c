"""Categories and attributes of products, and the words that sellers use for them, in Chinese and English.

The first word of a level is the most common one. Cuts have no words, because only images show them.
"""

from dataclasses import dataclass

LANGUAGES = ("zh", "en")


@dataclass(frozen=True)
class Level:
    """One value of an attribute, such as the colour pink."""

    name: str
    """Its name in `truth/products.parquet`, in English."""
    zh: tuple[str, ...] = ()
    """Chinese words for it, the most common one first; empty if titles never state it."""
    en: tuple[str, ...] = ()
    """English words for it, the most common one first; empty if titles never state it."""

    def words(self, language: str) -> tuple[str, ...]:
        """Return the words that sellers use for it, the most common one first; empty if titles never state it.

        Args:
            language: "zh"; any other text gives the English words.
        """
        return self.zh if language == "zh" else self.en


@dataclass(frozen=True)
class Category:
    """A category of products, on the second level of the catalogue, such as rompers among clothing."""

    name: str
    """Its name in the code, in English; the catalogue has the path."""
    zh_path: str
    """Both levels in Chinese, joined by `>`."""
    en_path: str
    """Both levels in English, joined by `>`."""
    zh: tuple[str, ...]
    """Chinese words for it in titles, the most common one first."""
    en: tuple[str, ...]
    """English words for it in titles, the most common one first."""
    share: float
    """Share of the designs that are of this category, 0 to 1; sums to 1 over CATEGORIES."""
    ages: tuple[float, float, float, float, float]
    """Share of its designs for each stage of CHILD_AGES; sums to 1."""
    girls: float
    """Share of its designs for girls, 0 to 1."""
    boys: float
    """Share of its designs for boys, 0 to 1; the rest is unisex."""
    price: float
    """Usual price, in the shop's currency."""

    def path(self, language: str) -> str:
        """Return its path in the catalogue, such as `clothing>rompers`.

        Args:
            language: "zh"; any other text gives the English path.
        """
        return self.zh_path if language == "zh" else self.en_path

    def words(self, language: str) -> tuple[str, ...]:
        """Return the words that sellers use for it, the most common one first.

        Args:
            language: "zh"; any other text gives the English words.
        """
        return self.zh if language == "zh" else self.en


CATEGORIES = (
    Category("romper", "服装>连体衣", "clothing>rompers", ("连体衣", "爬服", "哈衣"), ("romper", "bodysuit", "onesie"),
             0.11, (0.34, 0.34, 0.24, 0.06, 0.02), 0.35, 0.35, 69),
    Category("top", "服装>上衣", "clothing>tops", ("上衣", "T恤", "卫衣"), ("top", "T-shirt", "sweatshirt"),
             0.12, (0.10, 0.14, 0.28, 0.26, 0.22), 0.36, 0.36, 59),
    Category("trousers", "服装>裤子", "clothing>trousers", ("裤子", "长裤", "打底裤"),
             ("trousers", "pants", "leggings"),
             0.10, (0.10, 0.16, 0.28, 0.25, 0.21), 0.36, 0.36, 55),
    Category("dress", "服装>裙子", "clothing>dresses", ("裙子", "连衣裙", "公主裙"), ("dress", "skirt", "frock"),
             0.07, (0.06, 0.16, 0.28, 0.28, 0.22), 0.94, 0.01, 89),
    Category("shoes", "鞋帽>童鞋", "shoes & hats>shoes", ("童鞋", "宝宝鞋", "鞋子"), ("shoes", "sneakers", "booties"),
             0.10, (0.12, 0.20, 0.28, 0.22, 0.18), 0.34, 0.34, 99),
    Category("hat", "鞋帽>帽子", "shoes & hats>hats", ("帽子", "宝宝帽", "遮阳帽"), ("hat", "cap", "bonnet"),
             0.05, (0.22, 0.20, 0.22, 0.20, 0.16), 0.34, 0.34, 39),
    Category("bottle", "喂养>奶瓶水杯", "feeding>bottles", ("水杯", "奶瓶", "水壶"), ("bottle", "cup", "flask"),
             0.08, (0.24, 0.24, 0.22, 0.17, 0.13), 0.18, 0.18, 79),
    Category("tableware", "喂养>餐具", "feeding>tableware", ("餐具", "碗勺", "餐盘"),
             ("tableware", "bowl set", "plate"),
             0.05, (0.08, 0.30, 0.32, 0.20, 0.10), 0.15, 0.15, 49),
    Category("diaper", "尿裤>纸尿裤", "diapers>diapers", ("纸尿裤", "尿不湿", "拉拉裤"),
             ("diapers", "nappies", "pull-ups"),
             0.06, (0.36, 0.32, 0.26, 0.05, 0.01), 0.10, 0.10, 119),
    Category("blocks", "玩具>积木", "toys>blocks", ("积木", "拼装玩具", "益智玩具"),
             ("blocks", "building set", "stacking toy"),
             0.06, (0.06, 0.16, 0.28, 0.28, 0.22), 0.20, 0.30, 109),
    Category("plush", "玩具>毛绒玩具", "toys>plush", ("毛绒玩具", "公仔", "玩偶"),
             ("plush toy", "stuffed animal", "doll"),
             0.06, (0.20, 0.20, 0.22, 0.22, 0.16), 0.30, 0.20, 69),
    Category("wash", "洗护>沐浴露", "bath & care>wash", ("沐浴露", "洗发水", "洗护"),
             ("body wash", "shampoo", "bath gel"),
             0.05, (0.24, 0.22, 0.26, 0.18, 0.10), 0.12, 0.12, 59),
    Category("backpack", "出行>背包", "outdoor>backpacks", ("背包", "书包", "双肩包"),
             ("backpack", "school bag", "rucksack"),
             0.05, (0.02, 0.08, 0.26, 0.34, 0.30), 0.36, 0.36, 129),
    Category("sleepsack", "寝具>睡袋", "bedding>sleep sacks", ("睡袋", "防踢被", "抱被"),
             ("sleep sack", "sleeping bag", "wrap"),
             0.04, (0.32, 0.28, 0.22, 0.13, 0.05), 0.25, 0.25, 139),
)  # fmt: skip

COLOURS = (
    Level("pink", ("粉色", "粉红", "樱花粉"), ("pink", "rose", "blush")),
    Level("red", ("红色", "大红", "中国红"), ("red", "crimson", "scarlet")),
    Level("orange", ("橙色", "橘色", "活力橙"), ("orange", "tangerine", "apricot")),
    Level("yellow", ("黄色", "鹅黄", "柠檬黄"), ("yellow", "lemon", "mustard")),
    Level("green", ("绿色", "草绿", "牛油果绿"), ("green", "sage", "avocado")),
    Level("blue", ("蓝色", "天蓝", "浅蓝"), ("blue", "sky blue", "light blue")),
    Level("navy", ("藏青", "深蓝", "海军蓝"), ("navy", "dark blue", "midnight blue")),
    Level("purple", ("紫色", "香芋紫", "薰衣草紫"), ("purple", "lilac", "lavender")),
    Level("brown", ("棕色", "咖色", "焦糖色"), ("brown", "coffee", "caramel")),
    Level("grey", ("灰色", "浅灰", "高级灰"), ("grey", "light grey", "stone")),
)
PATTERNS = (
    Level("plain", ("纯色", "素色", "净色"), ("plain", "solid", "solid colour")),
    Level("stripes", ("条纹", "横条", "海魂条"), ("striped", "stripes", "stripe")),
    Level("dots", ("波点", "圆点", "豆豆"), ("polka dot", "dotted", "dots")),
    Level("checks", ("格子", "格纹", "方格"), ("checked", "plaid", "gingham")),
    Level("stars", ("星星", "满天星", "五角星"), ("stars", "starry", "star print")),
    Level("hearts", ("爱心", "心形", "桃心"), ("hearts", "heart print", "sweetheart")),
    Level("flowers", ("碎花", "小花", "花朵"), ("floral", "flowers", "flower print")),
    Level("zigzag", ("波浪纹", "锯齿纹", "人字纹"), ("zigzag", "chevron", "wavy")),
)
EMBLEMS = (
    Level("none"),
    Level("bear", ("小熊", "熊熊", "棕熊"), ("bear", "teddy", "bear cub")),
    Level("rabbit", ("兔子", "小兔", "萌兔"), ("rabbit", "bunny", "hare")),
    Level("dinosaur", ("恐龙", "小恐龙", "霸王龙"), ("dinosaur", "dino", "T-rex")),
    Level("car", ("汽车", "小汽车", "赛车"), ("car", "racing car", "truck")),
    Level("whale", ("鲸鱼", "海洋", "小鲸"), ("whale", "ocean", "sea")),
)
CUTS = (Level("simple"), Level("outlined"), Level("two-tone"), Level("piped"), Level("patched"))
"""The cut of a product: shown in images, never stated in titles."""
FUNCTIONS = (
    Level("organic", ("有机棉", "A类纯棉", "天然材质"), ("organic", "natural", "pure")),
    Level("non-slip", ("防滑", "止滑", "防摔"), ("non-slip", "anti-slip", "grippy")),
    Level("washable", ("可机洗", "易清洗", "可水洗"), ("machine washable", "easy clean", "washable")),
    Level("warm", ("加厚", "保暖", "加绒"), ("warm", "thick", "thermal")),
    Level("breathable", ("透气", "轻薄", "网眼"), ("breathable", "light", "mesh")),
    Level("portable", ("便携", "可折叠", "轻便"), ("portable", "foldable", "travel")),
)
"""The function or material of a product: stated in titles, never shown in images."""

AGE_WORDS = {
    "zh": (
        ("0-6个月", "新生儿", "初生婴儿", "0-6M"),
        ("6-12个月", "半岁宝宝", "6-12M", "8个月"),
        ("1-3岁", "幼儿", "一岁两岁", "学步"),
        ("3-6岁", "幼儿园", "小童", "四岁"),
        ("6-14岁", "中大童", "大童", "小学生"),
    ),
    "en": (
        ("0-6 months", "newborn", "0-6M", "infant"),
        ("6-12 months", "6-12M", "half year", "crawler"),
        ("1-3 years", "toddler", "first steps", "2T"),
        ("3-6 years", "preschool", "kindergarten", "age 4"),
        ("6-14 years", "school age", "big kids", "junior"),
    ),
}
GENDER_WORDS = {
    "zh": (("男童", "男宝宝", "男孩"), ("女童", "女宝宝", "女孩"), ("男女通用", "男女宝", "中性")),
    "en": (("boys", "baby boy", "for boys"), ("girls", "baby girl", "for girls"), ("unisex",
           "boys and girls", "for all")),
}  # fmt: skip
"""In the order of CHILD_GENDERS."""
FILLERS = {
    "zh": ("新款", "爆款", "包邮", "ins风", "网红同款", "2026春款", "可爱", "洋气", "母婴", "宝宝",
           "儿童", "正品", "送礼",
           "满月礼", "超萌", "特价", "百搭", "高颜值", "家用", "四季"),
    "en": ("new", "best seller", "free shipping", "cute", "2026 spring", "gift", "official", "baby", "kids", "sale",
           "trendy", "everyday", "adorable", "premium", "all season", "hot", "soft", "lovely", "classic", "home"),
}  # fmt: skip
BRAND_SYLLABLES = (
    ("小", "xiao"), ("蓓", "bei"), ("乐", "le"), ("安", "an"), ("可", "ke"), ("童", "tong"), ("朵",
    "duo"), ("优", "you"),
    ("禾", "he"), ("柚", "yu"), ("呦", "yo"), ("棉", "mian"), ("果", "guo"), ("星", "xing"), ("糯",
    "nuo"), ("芽", "ya"),
)  # fmt: skip
"""Three syllables make an invented brand name."""

PERSONAS = {
    "sweet": ("pink", "purple", "hearts", "dots", "rabbit", "piped", "organic"),
    "cool": ("navy", "grey", "stripes", "stars", "car", "outlined", "non-slip"),
    "natural": ("green", "brown", "plain", "checks", "bear", "simple", "breathable"),
    "lively": ("orange", "yellow", "red", "zigzag", "dinosaur", "patched", "washable"),
    "airy": ("blue", "purple", "flowers", "stars", "whale", "none", "two-tone", "portable", "warm"),
}
"""Attributes that are liked together. Each design prefers one persona, each user one or a few."""
STYLE = (COLOURS, PATTERNS, EMBLEMS, CUTS, FUNCTIONS)
"""The attributes that taste depends on, in the order of the style vector."""
STYLE_NAMES = ("colour", "pattern", "emblem", "cut", "function")
STYLE_WIDTH = sum(len(levels) for levels in STYLE)
